//! What people see: the payer's phone as a web page, and the checkout of an initiating terminal
//! (requirements D1 to D7), in English and Chinese.
//!
//! A page comes in two steps. Its *shell* holds nothing of anybody, so it needs no authorisation.
//! The script in it then fetches *parts*, HTML of one payment or of a list, with the proof that the
//! phone's session (or the checkout's key) gives. Parts are written here too: what a payment says
//! passes through `maud`, which escapes it, and no script puts a text into markup.
//!
//! Here are pure functions from what is known to markup; `http::pages` has the routes. Absent on
//! purpose: decisions, access, state.

mod assets;
mod checkout;
mod error;
mod headers;
mod lang;
mod layout;
mod phone;
mod qr;
mod shown;
mod texts;

pub(crate) use assets::Asset;
pub(crate) use checkout::{CheckoutPart, checkout_part, checkout_shell};
pub(crate) use error::{ErrorPage, error_page};
pub(crate) use headers::{PageKind, set as set_headers};
pub(crate) use lang::Lang;
pub(crate) use phone::{
    Device, ListItem, PaymentPart, list_part, list_shell, payment_part, payment_shell,
};
