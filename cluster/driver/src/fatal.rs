//! The end of a node that must not go on. Nothing retries: an fsync that failed may have lost what it was
//! given, and a thread that panicked left work undone that nobody else knows of.

use std::panic::{self, AssertUnwindSafe};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, JoinHandle};

use tokio::sync::watch;

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
    /// Ends the tasks.
    stop: watch::Sender<bool>,
}

impl Fatal {
    pub(crate) fn new(hook: OnFatal) -> Self {
        Fatal { hook, dead: Arc::new(AtomicBool::new(false)), stop: watch::Sender::new(false) }
    }

    /// Whether the node has ended; from then on no thread may act on anything.
    pub(crate) fn is_dead(&self) -> bool {
        self.dead.load(Ordering::SeqCst)
    }

    /// Becomes true when all tasks are to end, whatever the reason.
    pub(crate) fn stopping(&self) -> watch::Receiver<bool> {
        self.stop.subscribe()
    }

    /// Ends the tasks in good order.
    pub(crate) fn stop_tasks(&self) {
        self.stop.send_replace(true);
    }

    /// Ends the node without a word, as a crash would.
    pub(crate) fn kill(&self) {
        self.dead.store(true, Ordering::SeqCst);
        self.stop_tasks();
    }

    /// Ends the node. Only the first reason is told.
    pub(crate) fn raise(&self, sentence: String) {
        if self.dead.swap(true, Ordering::SeqCst) {
            return;
        }
        tracing::error!(reason = %sentence, "this node stops at once");
        ::metrics::counter!(metrics::FATAL).increment(1);
        self.stop_tasks();
        (self.hook)(sentence);
    }

    /// A thread whose error or panic ends the node.
    pub(crate) fn spawn(
        &self,
        name: &'static str,
        work: impl FnOnce() -> Result<(), String> + Send + 'static,
    ) -> std::io::Result<JoinHandle<()>> {
        let fatal = self.clone();
        thread::Builder::new().name(name.into()).spawn(move || match panic::catch_unwind(AssertUnwindSafe(work)) {
            Ok(Ok(())) => {}
            Ok(Err(sentence)) => fatal.raise(format!("{name}: {sentence}")),
            Err(payload) => fatal.raise(panicked(name, payload.as_ref())),
        })
    }

    /// A task that ends with the node, and whose panic ends the node.
    pub(crate) fn spawn_task(&self, name: &'static str, work: impl Future<Output = ()> + Send + 'static) {
        let (fatal, mut stop) = (self.clone(), self.stopping());
        let task = tokio::spawn(async move {
            tokio::select! {
                () = work => {}
                // A closed channel means the same.
                _ = stop.wait_for(|stop| *stop) => {}
            }
        });
        tokio::spawn(async move {
            if let Err(error) = task.await
                && let Ok(payload) = error.try_into_panic()
            {
                fatal.raise(panicked(name, payload.as_ref()));
            }
        });
    }
}

fn panicked(name: &str, payload: &(dyn std::any::Any + Send)) -> String {
    let text = panic_text(payload);
    format!("{name}: panicked: {text}; this is a bug: keep the log and report it, then start the node again")
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
        let hook = {
            let told = told.clone();
            Arc::new(move |s| told.lock().unwrap().push(s))
        };
        let fatal = Fatal::new(hook);
        fatal.spawn("t-fine", || Ok(())).unwrap().join().unwrap();
        assert!(!fatal.is_dead());
        fatal.spawn("t-panics", || panic!("broken {}", 7)).unwrap().join().unwrap();
        fatal.spawn("t-fails", || Err("disk gone".into())).unwrap().join().unwrap();
        assert!(fatal.is_dead());
        let told = told.lock().unwrap();
        assert_eq!(told.len(), 1);
        assert!(told[0].starts_with("t-panics: panicked: broken 7"), "{}", told[0]);
        assert!(*fatal.stopping().borrow());
    }

    #[tokio::test]
    async fn a_task_that_panics_ends_the_node_and_one_that_runs_ends_with_it() {
        let (told, mut heard) = tokio::sync::mpsc::unbounded_channel();
        let fatal = Fatal::new(Arc::new(move |sentence| told.send(sentence).unwrap()));
        let (ended, end) = tokio::sync::oneshot::channel::<()>();
        fatal.spawn_task("t-runs", async move {
            std::future::pending::<()>().await;
            drop(ended);
        });
        fatal.spawn_task("t-panics", async { panic!("broken") });
        assert!(heard.recv().await.unwrap().starts_with("t-panics: panicked: broken"));
        assert!(end.await.is_err());
    }
}
