//! Drives core machines over async byte streams
