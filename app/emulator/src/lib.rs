//! Emulated SAM module and ID card
