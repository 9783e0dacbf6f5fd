//! The end of a run: everything heals, and then each mailbox is looked into.

use std::collections::BTreeMap;
use std::sync::Arc;

use mailraft_mailbox::accepted::QueuedItem;
use mailraft_mailbox::api::{FetchWhat, FetchedContent};
use mailraft_mailbox::{Answer, Command, Mailbox, Read, UidSet};
use mailraft_storage::body::open_chunk;
use mailraft_storage::{CommandId, Env, MailboxId, PartitionId, Rows, Table};

use super::{HEALING_ROUNDS, PARTITIONS, Summary, World, key_of};
use crate::message;

impl World {
    /// All faults end: everything must be answered and delivered soon. Then what was held up comes at last.
    pub(super) fn heal(&mut self) -> Result<(), String> {
        self.healing = true;
        self.settle()?;
        while !self.late.is_empty() {
            self.late_copy()?;
            self.settle()?;
        }
        Ok(())
    }

    pub(super) fn settle(&mut self) -> Result<(), String> {
        for _ in 0..HEALING_ROUNDS {
            self.pass(1_000);
            self.wake_queues()?;
            self.client()?;
            self.again()?;
            for mailbox in self.flying() {
                self.applies(mailbox)?;
            }
            for job in std::mem::take(&mut self.jobs) {
                self.carry_out(job)?;
            }
            if self.jobs.is_empty() && self.flying().is_empty() && self.unanswered() == 0 && self.waiting()?.is_empty()
            {
                return Ok(());
            }
        }
        let unanswered = self.unanswered();
        Err(format!("liveness: {unanswered} messages have no answer, and these wait: {:?}", self.waiting()?))
    }

    pub(super) fn unanswered(&self) -> usize {
        self.messages.iter().filter(|m| m.accepted.is_none()).count()
    }

    /// Items with recipients for whom something is still to be done.
    pub(super) fn waiting(&mut self) -> Result<Vec<CommandId>, String> {
        self.items(|item| item.waiting + item.delivered > 0)
    }

    /// Those items of all queues.
    pub(super) fn items(&mut self, which: impl Fn(&QueuedItem) -> bool) -> Result<Vec<CommandId>, String> {
        let mut found = Vec::new();
        for queue in (1..=PARTITIONS).map(|number| MailboxId::queue_of(PartitionId(number))) {
            let mut engine = self.load(queue)?;
            let Read::Answered(Ok(Answer::QueueItems(items)), _) =
                engine.read(&self.env, &Command::QueueItems { after: None })
            else {
                return Err("a queue can't be listed".to_owned());
            };
            found.extend(items.iter().filter(|item| which(item)).map(|item| item.item));
        }
        Ok(found)
    }

    pub(super) fn load(&mut self, mailbox: MailboxId) -> Result<Mailbox, String> {
        let partition = self.partition(mailbox);
        let rows: Arc<dyn Rows> = Arc::new(partition.rows.clone());
        Mailbox::load(rows, partition.place(mailbox), key_of(mailbox)).map_err(|e| e.to_string())
    }

    pub(super) fn check(&mut self) -> Result<Summary, String> {
        let mut found: BTreeMap<MailboxId, BTreeMap<u64, usize>> = BTreeMap::new();
        for mailbox in self.mailboxes.clone() {
            let markers = self.markers(mailbox)?;
            let counts = found.entry(mailbox).or_default();
            markers.into_iter().for_each(|marker| *counts.entry(marker).or_default() += 1);
        }
        for message in &self.messages {
            if message.accepted != Some(true) {
                return Err(format!("message {} was not accepted", message.marker));
            }
            self.summary.accepted += 1;
            for mailbox in message.recipients.iter().filter(|mailbox| !self.deleted.contains(mailbox)) {
                let times = found[mailbox].get(&message.marker).copied().unwrap_or_default();
                self.summary.delivered += 1;
                if times != 1 && !(times == 0 && message.may_be_lost) {
                    return Err(format!("message {} is {times} times in mailbox {mailbox}", message.marker));
                }
            }
        }
        for queue in (1..=PARTITIONS).map(|number| MailboxId::queue_of(PartitionId(number))) {
            let partition = self.partition(queue);
            if !partition.has_rows(queue, Table::QueueKeys)? && partition.has_rows(queue, Table::QueueRecipients)? {
                return Err("recipients outlive their item".to_owned());
            }
        }
        Ok(self.summary)
    }

    /// What the messages in a mailbox's INBOX say they are, every byte of them read.
    pub(super) fn markers(&mut self, mailbox: MailboxId) -> Result<Vec<u64>, String> {
        let mut engine = self.load(mailbox)?;
        let rows = self.partition(mailbox).rows.clone();
        let mut ask = |env: &Env, command: Command| match engine.read(env, &command) {
            Read::Answered(result, _) => result.map_err(|e| e.to_string()).map(Some),
            Read::Stored(read) => read.run(&rows).map_err(|e| e.to_string()).map(|read| Some(read.answer)),
            Read::Heard | Read::TooEarly => Ok(None),
        };
        let select = Command::Select { folder: "INBOX".to_owned(), claim_recent: false };
        let Some(Answer::Selected(selected)) = ask(&self.env, select)? else { return Ok(Vec::new()) };
        let uids: UidSet = selected.messages.iter().map(|message| message.uid).collect();
        let what = FetchWhat { content: true, header: false };
        let Some(Answer::Fetched(fetched)) = ask(&self.env, Command::Fetch { folder: selected.folder, uids, what })?
        else {
            return Err("INBOX can't be read".to_owned());
        };
        let mut markers = Vec::new();
        for FetchedContent { email, body, body_key, chunks, .. } in fetched.into_iter().filter_map(|f| f.content) {
            let mut plain = Vec::new();
            for number in 0..chunks {
                let Some(Answer::Chunk(Some(sealed))) = ask(&self.env, Command::ReadChunk { email, body, number })?
                else {
                    return Err(format!("a chunk is missing in mailbox {mailbox}"));
                };
                let opened = open_chunk(body, &body_key, number, number + 1 == chunks, &sealed);
                plain.extend_from_slice(&opened.map_err(|e| format!("a chunk does not open: {e}"))?);
            }
            markers.push(message::marker_of_text(&plain).ok_or("a message is not what was sent")?);
        }
        Ok(markers)
    }
}
