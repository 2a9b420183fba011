//! Use cases: enrol, authenticate, read
