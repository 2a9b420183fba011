//! HTTP API, device gateway and wiring
