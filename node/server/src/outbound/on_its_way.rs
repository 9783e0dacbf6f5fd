//! A message of a queue on its way to a server: its pieces, in the form that the server takes.

use std::sync::Arc;

use bytes::Bytes;
use mailraft_cluster::{BarrierOutcome, Reader};
use mailraft_directory::Lookup;
use mailraft_driver::Cluster;
use mailraft_mailbox::Place;
use mailraft_mailbox::queue::outgoing::OutgoingMessage;
use mailraft_outbound::encode::Shape;
use mailraft_outbound::seven_bit::Converter;
use mailraft_storage::{Rows, UnixMillis};

use super::connection::Outgoing;
use super::message::read;
use super::seven_bit::{SevenBit, seven_bit};
use super::{LetGo, LettingGo};

/// Where a message is read from.
pub struct Source {
    /// Where it is noted that its last octet is let go.
    pub letting_go: LettingGo,
    /// The rows that it is in.
    pub rows: Arc<dyn Rows>,
    /// Keys that sign it.
    pub lookup: Arc<Lookup>,
    /// Who says whether it may still be sent.
    pub cluster: Cluster,
    /// Its queue.
    pub place: Place,
    /// When this attempt began, by the time that nodes agree on.
    pub now: UnixMillis,
}

/// A message on its way.
pub struct OnItsWay {
    message: Arc<OutgoingMessage>,
    source: Source,
    before: Bytes,
    /// Once a server wanted it: its 7-bit form, or why there is none.
    seven_bit: Option<Result<Arc<SevenBit>, String>>,
    form: Form,
    next: Option<u32>,
    /// In its 7-bit form, as far as it was sent.
    converter: Option<Converter>,
    let_go: Option<LetGo>,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Form {
    AsItIs,
    SevenBit,
}

impl OnItsWay {
    /// From its beginning on, as it is, with these fields before it.
    pub fn new(message: Arc<OutgoingMessage>, source: Source, before: Vec<u8>) -> Self {
        OnItsWay {
            message,
            source,
            before: before.into(),
            seven_bit: None,
            form: Form::AsItIs,
            next: None,
            converter: None,
            let_go: None,
        }
    }

    /// That its last octet was let go, if it was.
    pub fn let_go(&mut self) -> Option<LetGo> {
        self.let_go.take()
    }

    /// Its 7-bit form, if it is to be sent in that.
    fn form(&self) -> Option<&SevenBit> {
        match (self.form, &self.seven_bit) {
            (Form::SevenBit, Some(Ok(form))) => Some(form),
            (Form::SevenBit, Some(Err(_)) | None) | (Form::AsItIs, _) => None,
        }
    }
}

impl Outgoing for OnItsWay {
    async fn piece(&mut self) -> Result<Option<Bytes>, String> {
        let number = match self.next {
            Some(number) => number,
            None => {
                self.next = Some(0);
                self.converter = self.form().map(|form| Converter::new(&form.plan));
                let before = self.form().map(|form| Bytes::copy_from_slice(&form.measured.fields));
                let before = before.unwrap_or_else(|| self.before.clone());
                if !before.is_empty() {
                    return Ok(Some(before));
                }
                0
            }
        };
        if number >= self.message.chunks() {
            return match self.converter.take().map_or(Ok(()), Converter::finish) {
                Ok(()) => Ok(None),
                Err(error) => Err(error.to_string()),
            };
        }
        self.next = Some(number + 1);
        let (message, rows, converter) =
            (Arc::clone(&self.message), Arc::clone(&self.source.rows), self.converter.take());
        let piece = tokio::task::spawn_blocking(move || {
            let piece = read(&message, rows.as_ref(), number)?;
            Ok::<_, String>(match converter {
                Some(mut converter) => {
                    let mut converted = Vec::new();
                    converter.piece(&piece, &mut converted);
                    (converted, Some(converter))
                }
                None => (piece, None),
            })
        });
        let (piece, converter) = piece.await.map_err(|_| "reading the message failed".to_owned())??;
        self.converter = converter;
        Ok(Some(piece.into()))
    }

    fn rewind(&mut self) {
        (self.next, self.converter) = (None, None);
    }

    fn as_it_is(&mut self) {
        self.form = Form::AsItIs;
    }

    async fn in_seven_bits(&mut self) -> Result<Result<Shape, String>, String> {
        let form = if let Some(found) = &self.seven_bit {
            found.clone()
        } else {
            let message = Arc::clone(&self.message);
            let (rows, lookup, now) = (Arc::clone(&self.source.rows), Arc::clone(&self.source.lookup), self.source.now);
            let found = tokio::task::spawn_blocking(move || seven_bit(&message, rows.as_ref(), &lookup, now)).await;
            let found = found.map_err(|_| "reading the message failed".to_owned())??;
            self.seven_bit.insert(found.map(Arc::new)).clone()
        };
        self.form = Form::SevenBit;
        Ok(form.map(|form| form.measured.shape))
    }

    async fn may_be_sent(&mut self) -> Result<(), String> {
        let elsewhere = || Err("another node sends it now".to_owned());
        let Some(queue) = self.source.place.mailbox.queue_partition() else { return elsewhere() };
        match self.source.cluster.read_barrier(queue, Reader::Owner(self.source.place.term)).await {
            Ok(BarrierOutcome::Passed { .. }) => {}
            Ok(_) | Err(_) => return elsewhere(),
        }
        // What is decided is in rows that are as new as the barrier.
        let (message, rows) = (Arc::clone(&self.message), Arc::clone(&self.source.rows));
        match tokio::task::spawn_blocking(move || message.is_still_to_be_sent(rows.as_ref())).await {
            Ok(Ok(true)) => {
                self.let_go = Some(self.source.letting_go.one());
                Ok(())
            }
            Ok(Ok(false)) => Err("an operator decided otherwise about it while it was sent".to_owned()),
            Ok(Err(error)) => Err(format!("what became of it meanwhile can't be read here: {error}")),
            Err(_) => Err("reading what became of it meanwhile failed".to_owned()),
        }
    }
}
