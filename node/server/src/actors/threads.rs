//! The threads that actors run on, and how threads that work for clients let others go first.

use std::io;

use actix::{Arbiter, ArbiterHandle, System};
use tokio::runtime::{Builder, Runtime};

/// How much nicer threads are that work for clients than those for what nodes say to each other, timers and replication.
pub const CLIENTS_NICE: i32 = 5;

/// Threads for actors.
const ARBITERS: usize = 2;

/// The threads that actors run on.
pub struct ActorThreads {
    arbiters: Vec<ArbiterHandle>,
    system: System,
}

impl ActorThreads {
    /// Starts them: actix has a thread of its own, the arbiters are its.
    ///
    /// # Errors
    /// One sentence if a thread can't be started.
    pub fn start() -> Result<Self, String> {
        let (tx, rx) = std::sync::mpsc::channel();
        let thread = std::thread::Builder::new().name("actors".into()).spawn(move || {
            let runner = System::new();
            let made = runner.block_on(async {
                let arbiters = (0..ARBITERS).map(|_| Ok(Arbiter::try_with_tokio_rt(runtime)?.handle()));
                Ok(ActorThreads { arbiters: arbiters.collect::<io::Result<_>>()?, system: System::current() })
            });
            if tx.send(made).is_ok() {
                let _ = runner.run();
            }
        });
        let not_started = |e: io::Error| format!("the actors' threads can't be started: {e}");
        thread.map_err(not_started)?;
        rx.recv().map_err(|_| "the actors' thread ended at once".to_owned())?.map_err(not_started)
    }

    /// Ends them and every actor.
    pub fn stop(&self) {
        self.system.stop();
    }

    pub(super) fn arbiters(&self) -> &[ArbiterHandle] {
        &self.arbiters
    }
}

/// What actors have other threads compute may take seconds: loading a mailbox, reading, deciding on many messages. Those go
/// behind.
fn runtime() -> io::Result<Runtime> {
    Builder::new_current_thread().enable_all().on_thread_start(|| nicer_by(CLIENTS_NICE)).build()
}

/// The calling thread is nicer than the others of this process from now on.
pub fn nicer_by(nice: i32) {
    // With no process given Linux takes the calling thread. Not being allowed to does no harm.
    let _ = rustix::process::nice(nice);
}
