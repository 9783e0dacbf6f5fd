//! The threads that actors run on.

use actix::{Arbiter, ArbiterHandle, System};

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
                let arbiters = (0..ARBITERS).map(|_| Arbiter::new().handle()).collect();
                ActorThreads { arbiters, system: System::current() }
            });
            if tx.send(made).is_ok() {
                let _ = runner.run();
            }
        });
        thread.map_err(|e| format!("the actors' thread can't be started: {e}"))?;
        rx.recv().map_err(|_| "the actors' thread ended at once".to_owned())
    }

    /// Ends them and every actor.
    pub fn stop(&self) {
        self.system.stop();
    }

    pub(super) fn arbiters(&self) -> &[ArbiterHandle] {
        &self.arbiters
    }
}
