//! Serial ports, for SAM modules (GA 467: 8N1, 115200 baud by default).

use std::io;

use tokio_serial::{SerialPortBuilderExt, SerialStream};

/// The modules' default speed.
pub const BAUD: u32 = 115_200;

/// Opens a serial port (or a pty) by its path: 8 data bits, no parity, 1 stop bit.
///
/// # Errors
/// The system's: no such port, in use, no permission.
pub fn open(path: &str, baud: u32) -> io::Result<SerialStream> {
    tokio_serial::new(path, baud).open_native_async().map_err(|error| match error.kind() {
        tokio_serial::ErrorKind::Io(kind) => io::Error::new(kind, error.description),
        _ => io::Error::other(error.description),
    })
}
