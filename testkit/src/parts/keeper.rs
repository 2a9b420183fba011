//! The thread that starts long-lived children.
//!
//! A parent-death signal fires when the *thread* that made the child ends. Test threads end with
//! their test while the part may serve others, so one thread that lives as long as the process
//! starts them all.

use std::io;
use std::process::{Child, Command};
use std::sync::OnceLock;
use std::sync::mpsc::{Sender, channel};
use std::thread;

struct Job {
    command: Command,
    reply: Sender<io::Result<Child>>,
}

/// Starts `command` from the keeper thread.
///
/// # Errors
/// What `Command::spawn` returns.
pub(super) fn spawn(command: Command) -> io::Result<Child> {
    static KEEPER: OnceLock<Sender<Job>> = OnceLock::new();
    let keeper = KEEPER.get_or_init(|| {
        let (jobs, inbox) = channel::<Job>();
        thread::spawn(move || {
            for mut job in inbox {
                // A caller that is gone no longer wants the answer; its child must not stay.
                if let Err(unsent) = job.reply.send(job.command.spawn())
                    && let Ok(mut child) = unsent.0
                {
                    let _ = child.kill();
                }
            }
        });
        jobs
    });
    let (reply, answer) = channel();
    let gone = || io::Error::other("the thread that starts children is gone");
    keeper.send(Job { command, reply }).map_err(|_| gone())?;
    answer.recv().map_err(|_| gone())?
}
