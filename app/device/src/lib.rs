//! Device programs: the reader
