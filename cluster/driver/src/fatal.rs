//! The end of a node that must not go on. Nothing retries: an fsync that failed may have lost what it was
//! given, and a thread that panicked left work undone that nobody else knows of.

use std::panic::{self, AssertUnwindSafe};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, JoinHandle};

use crate::metrics;

/// Told in a sentence what happened, where, and what to do.
pub type OnFatal = Arc<dyn Fn(String) + Send + Sync>;

/// Ends the process with exit code 1.
pub fn exit_process() -> OnFatal {
    Arc::new(|_| std::process::exit(1))
}

/// Shared by all threads of a driver.
#[derive(Clone)]
pub(crate) struct Fatal {
    hook: OnFatal,
    dead: Arc<AtomicBool>,
}

impl Fatal {
    pub(crate) fn new(hook: OnFatal) -> Self {
        Fatal { hook, dead: Arc::new(AtomicBool::new(false)) }
    }

    /// Whether the node has ended; from then on no thread may act on anything.
    pub(crate) fn is_dead(&self) -> bool {
        self.dead.load(Ordering::SeqCst)
    }

    /// Ends the node. Only the first reason is told.
    pub(crate) fn raise(&self, sentence: String) {
        if self.dead.swap(true, Ordering::SeqCst) {
            return;
        }
        tracing::error!(reason = %sentence, "this node stops at once");
        ::metrics::counter!(metrics::FATAL).increment(1);
        (self.hook)(sentence);
    }

    /// A thread whose error or panic ends the node.
    pub(crate) fn spawn(
        &self, name: &'static str, work: impl FnOnce() -> Result<(), String> + Send + 'static,
    ) -> std::io::Result<JoinHandle<()>> {
        let fatal = self.clone();
        thread::Builder::new().name(name.into()).spawn(move || {
            match panic::catch_unwind(AssertUnwindSafe(work)) {
                Ok(Ok(())) => {}
                Ok(Err(sentence)) => fatal.raise(format!("{name}: {sentence}")),
                Err(payload) => fatal.raise(format!(
                    "{name}: panicked: {}; this is a bug: keep the log and report it, then start the node again",
                    panic_text(payload.as_ref())
                )),
            }
        })
    }
}

fn panic_text(payload: &(dyn std::any::Any + Send)) -> &str {
    payload
        .downcast_ref::<&'static str>()
        .copied()
        .or_else(|| payload.downcast_ref::<String>().map(String::as_str))
        .unwrap_or("no message")
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use std::sync::Mutex;

    #[test]
    fn a_panic_and_an_error_end_the_node_and_only_the_first_is_told() {
        let told = Arc::new(Mutex::new(Vec::new()));
        let hook = { let told = told.clone(); Arc::new(move |s| told.lock().unwrap().push(s)) };
        let fatal = Fatal::new(hook);
        fatal.spawn("t-fine", || Ok(())).unwrap().join().unwrap();
        assert!(!fatal.is_dead());
        fatal.spawn("t-panics", || panic!("broken {}", 7)).unwrap().join().unwrap();
        fatal.spawn("t-fails", || Err("disk gone".into())).unwrap().join().unwrap();
        assert!(fatal.is_dead());
        let told = told.lock().unwrap();
        assert_eq!(told.len(), 1);
        assert!(told[0].starts_with("t-panics: panicked: broken 7"), "{}", told[0]);
    }
}
