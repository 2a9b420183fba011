//! The two passwords of a manager (A4, A5).

use std::path::PathBuf;

use clap::{Args, ValueEnum};
use countersign_crypto::Secret;
use countersign_device::ManagerDir;
use countersign_server::ambient;
use countersign_wallet::login::{Cost, Which as Password};
use serde_json::json;

use super::Which;
use crate::device::wallet::password;
use crate::failure::Failure;
use crate::output::Output;

/// Set, change or take away a password.
#[derive(Args)]
pub(crate) struct SetPassword {
    #[command(flatten)]
    which: Which,
    /// Which of the two.
    #[arg(value_enum)]
    password: Name,
    /// File with the new password, in its first line; without, it is asked for.
    #[arg(long, value_name = "FILE")]
    new_password_file: Option<PathBuf>,
    /// File with the password as it is: it is changed only for who knows it, and wrong ones are
    /// counted. Without, it is set anew, as the owner may who has this directory.
    #[arg(long, value_name = "FILE")]
    old_password_file: Option<PathBuf>,
    /// Have no alarm password any more.
    #[arg(long, conflicts_with_all = ["new_password_file", "old_password_file"])]
    remove: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Name {
    /// The password that lets a sleeve use the cards.
    Login,
    /// The password that seems to do so, and raises an alarm.
    Alarm,
}

impl SetPassword {
    pub(super) fn run(self) -> Result<Output, Failure> {
        let which = match self.password {
            Name::Login => Password::Login,
            Name::Alarm => Password::Alarm,
        };
        if self.remove && which == Password::Login {
            let detail = "without a login password nobody could log in: set another one";
            return Err(Failure::usage("password", detail));
        }
        // Before anybody is asked.
        let mut dir = ManagerDir::open(&self.which.manager)?;
        let ask = |file: &Option<PathBuf>, question: &str| password(file.as_deref(), question);
        let old = self.old_password_file.is_some();
        let old = old.then(|| ask(&self.old_password_file, "")).transpose()?;
        let new = match self.remove {
            true => None,
            false => Some(ask(&self.new_password_file, "The new password: ")?),
        };
        let typed = !self.remove && self.new_password_file.is_none();
        let differs =
            |new: &Secret| Ok::<_, Failure>(!new.ct_eq(ask(&None, "Once more: ")?.expose()));
        if typed && new.as_ref().map(differs).transpose()? == Some(true) {
            return Err(Failure::check("password-differs", "the two are not the same"));
        }
        let ambient = ambient();
        let (now, mut rng) = (ambient.clock.now(), (ambient.rng)());
        match (&old, &new) {
            (Some(old), Some(new)) => {
                dir.change_password(which, (old, new), Cost::USUAL, (now, &mut *rng))?;
            }
            (_, new) => dir.set_password(which, new.as_ref(), Cost::USUAL, (now, &mut *rng))?,
        }
        let (name, is) = match self.password {
            Name::Login => ("login", "The login password is set."),
            Name::Alarm if self.remove => ("alarm", "There is no alarm password any more."),
            Name::Alarm => ("alarm", "The alarm password is set."),
        };
        Ok(Output::new(json!({ "password": name, "set": new.is_some() }), is))
    }
}
