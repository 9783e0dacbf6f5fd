//! Conversations (RFC 5256, section 3, THREAD): by subject, or by what messages refer to.

use std::collections::BTreeMap;
use std::collections::btree_map::Entry;

use crate::breath::Breath;
use crate::subject::BaseSubject;

/// What a message, or one that is only referred to, takes in memory beside its texts, in bytes, roughly.
const NODE_MEMORY_BYTES: usize = 160;
/// What the id of a message takes beside its text.
const ID_MEMORY_BYTES: usize = 64;

/// A message that is put into its conversation.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Threaded {
    /// What it is called. Those that come before it have smaller ones.
    pub number: u32,
    /// When it was sent, in seconds since 1970-01-01 UTC.
    pub sent_unix_seconds: i64,
    /// What it is about.
    pub subject: BaseSubject,
}

/// Conversations as trees, each in the order in which it was begun.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Forest {
    roots: Vec<u32>,
    messages: Vec<Option<u32>>,
    children: Vec<Vec<u32>>,
}

/// A part of a conversation in the order in which it is told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Told {
    /// What follows up to its end is one answer among several, or a conversation.
    Begin,
    /// A message; the next one answers it.
    Message(u32),
    /// The end of what was begun last.
    End,
}

impl Forest {
    /// The conversations, one by one.
    pub fn conversations(&self) -> impl Iterator<Item = impl Iterator<Item = Told> + '_> + '_ {
        self.roots.iter().map(|root| Telling { forest: self, to_do: vec![ToDo::Branch(*root)] })
    }
}

struct Telling<'a> {
    forest: &'a Forest,
    to_do: Vec<ToDo>,
}

enum ToDo {
    Branch(u32),
    Node(u32),
    End,
}

impl Iterator for Telling<'_> {
    type Item = Told;

    fn next(&mut self) -> Option<Told> {
        loop {
            match self.to_do.pop()? {
                ToDo::End => return Some(Told::End),
                ToDo::Branch(node) => {
                    self.to_do.extend([ToDo::End, ToDo::Node(node)]);
                    return Some(Told::Begin);
                }
                ToDo::Node(node) => {
                    let message = self.forest.messages[node as usize];
                    match self.forest.children[node as usize].as_slice() {
                        [only] if message.is_some() => self.to_do.push(ToDo::Node(*only)),
                        several => self.to_do.extend(several.iter().rev().map(|child| ToDo::Branch(*child))),
                    }
                    if let Some(number) = message {
                        return Some(Told::Message(number));
                    }
                }
            }
        }
    }
}

/// Those of one subject are one conversation: all answer the first one.
#[derive(Debug, Default)]
pub struct BySubject {
    of: BTreeMap<String, Vec<(i64, u32)>>,
    bytes: usize,
}

impl BySubject {
    /// Puts a message into its conversation.
    pub fn add(&mut self, message: Threaded) {
        self.bytes += NODE_MEMORY_BYTES;
        let sent = (message.sent_unix_seconds, message.number);
        match self.of.entry(message.subject.text) {
            Entry::Occupied(mut of) => of.get_mut().push(sent),
            Entry::Vacant(of) => {
                self.bytes += ID_MEMORY_BYTES + of.key().len();
                of.insert(vec![sent]);
            }
        }
    }

    /// What all of it takes in memory.
    pub fn memory_bytes(&self) -> usize {
        self.bytes
    }

    /// The conversations.
    ///
    /// # Errors
    /// If it must not go on.
    pub async fn finish<B: Breath>(self, breath: &mut B) -> Result<Forest, B::Error> {
        let mut threads: Vec<Vec<(i64, u32)>> = Vec::with_capacity(self.of.len());
        for (_, mut thread) in self.of {
            breath.breathe().await?;
            thread.sort_unstable();
            threads.push(thread);
        }
        threads.sort_unstable_by_key(|thread| thread.first().copied());
        let mut forest = Forest::default();
        for thread in threads {
            breath.breathe().await?;
            let root = forest.messages.len() as u32;
            forest.roots.push(root);
            for (_, number) in &thread {
                forest.messages.push(Some(*number));
                forest.children.push(Vec::new());
            }
            forest.children[root as usize].extend((1..thread.len() as u32).map(|n| root + n));
        }
        Ok(forest)
    }
}

/// Messages answer those that they refer to.
#[derive(Debug, Default)]
pub struct ByReferences {
    nodes: Vec<Node>,
    ids: BTreeMap<Box<[u8]>, u32>,
    bytes: usize,
}

/// A message, or one that is only referred to.
#[derive(Debug, Default)]
struct Node {
    message: Option<Message>,
    parent: Option<u32>,
    /// Whether anything was ever put below it: what has nothing below it can be put below anything.
    is_parent: bool,
    /// One of those that it was ever linked with, or itself: what has another last one in this chain was not.
    linked: u32,
}

#[derive(Debug)]
struct Message {
    number: u32,
    sent_unix_seconds: i64,
    subject: BaseSubject,
}

impl ByReferences {
    /// Puts a message into its conversation: its Message-ID field's value, and those of References and In-Reply-To. Numbers
    /// rise from call to call.
    ///
    /// # Errors
    /// If it must not go on.
    pub async fn add<B: Breath>(
        &mut self,
        message: Threaded,
        message_id: &[u8],
        references: &[u8],
        in_reply_to: &[u8],
        breath: &mut B,
    ) -> Result<(), B::Error> {
        let Threaded { number, sent_unix_seconds, subject } = message;
        self.bytes += subject.text.len();
        let message = Message { number, sent_unix_seconds, subject };
        // Of several with one id the first one has it.
        let own = ids(message_id).next().map(|id| self.node(id));
        let own = match own.filter(|own| self.nodes[*own as usize].message.is_none()) {
            Some(own) => own,
            None => self.push(),
        };
        let mut last = None;
        let of = match ids(references).next() {
            Some(_) => (references, usize::MAX),
            None => (in_reply_to, 1),
        };
        for id in ids(of.0).take(of.1) {
            breath.breathe().await?;
            let next = self.node(id);
            if let Some(last) = last
                && self.nodes[next as usize].parent.is_none()
            {
                self.link(last, next, breath).await?;
            }
            last = Some(next);
        }
        self.nodes[own as usize].message = Some(message);
        self.nodes[own as usize].parent = None;
        if let Some(last) = last {
            self.link(last, own, breath).await?;
        }
        Ok(())
    }

    /// What all of it takes in memory.
    pub fn memory_bytes(&self) -> usize {
        self.bytes
    }

    fn push(&mut self) -> u32 {
        self.bytes += NODE_MEMORY_BYTES;
        let at = self.nodes.len() as u32;
        self.nodes.push(Node { linked: at, ..Node::default() });
        at
    }

    fn node(&mut self, id: Box<[u8]>) -> u32 {
        if let Some(node) = self.ids.get(&id) {
            return *node;
        }
        self.bytes += ID_MEMORY_BYTES + id.len();
        let node = self.push();
        self.ids.insert(id, node);
        node
    }

    /// The last one of the chain of what a node was ever linked with, which gets shorter.
    fn linked(&mut self, of: u32) -> u32 {
        let mut at = of;
        while self.nodes[at as usize].linked != at {
            let next = self.nodes[at as usize].linked;
            self.nodes[at as usize].linked = self.nodes[next as usize].linked;
            at = next;
        }
        at
    }

    /// Puts one below another, unless it is above it.
    async fn link<B: Breath>(&mut self, parent: u32, child: u32, breath: &mut B) -> Result<(), B::Error> {
        if parent == child {
            return Ok(());
        }
        let (one, other) = (self.linked(parent), self.linked(child));
        if one == other && self.nodes[child as usize].is_parent {
            let mut above = self.nodes[parent as usize].parent;
            while let Some(at) = above {
                breath.breathe().await?;
                if at == child {
                    return Ok(());
                }
                above = self.nodes[at as usize].parent;
            }
        }
        self.nodes[other as usize].linked = one;
        self.nodes[child as usize].parent = Some(parent);
        self.nodes[parent as usize].is_parent = true;
        Ok(())
    }

    /// The conversations.
    ///
    /// # Errors
    /// If it must not go on.
    pub async fn finish<B: Breath>(mut self, breath: &mut B) -> Result<Forest, B::Error> {
        self.ids.clear();
        let mut trees = Trees::of(self.nodes, breath).await?;
        trees.prune(breath).await?;
        trees.sort_roots();
        trees.join_subjects(breath).await?;
        trees.sort_all(breath).await?;
        Ok(Forest {
            roots: trees.roots,
            messages: trees.messages.into_iter().map(|message| message.map(|message| message.number)).collect(),
            children: trees.children,
        })
    }
}

/// Trees of which one level after the other is put in order.
struct Trees {
    roots: Vec<u32>,
    messages: Vec<Option<Message>>,
    children: Vec<Vec<u32>>,
}

impl Trees {
    async fn of<B: Breath>(nodes: Vec<Node>, breath: &mut B) -> Result<Self, B::Error> {
        let mut trees = Trees {
            roots: Vec::new(),
            messages: Vec::with_capacity(nodes.len()),
            children: vec![Vec::new(); nodes.len()],
        };
        for (at, node) in (0..).zip(nodes) {
            breath.breathe().await?;
            match node.parent {
                Some(parent) => trees.children[parent as usize].push(at),
                None => trees.roots.push(at),
            }
            trees.messages.push(node.message);
        }
        Ok(trees)
    }

    /// Those of a level, and of all levels below it, with those above before those below.
    fn downwards(&self) -> Vec<u32> {
        let mut order = self.roots.clone();
        let mut at = 0;
        while let Some(node) = order.get(at) {
            order.extend_from_slice(&self.children[*node as usize]);
            at += 1;
        }
        order
    }

    /// What is only referred to goes, and what is below it takes its place; but several do not become conversations of
    /// their own.
    async fn prune<B: Breath>(&mut self, breath: &mut B) -> Result<(), B::Error> {
        for node in self.downwards().into_iter().rev() {
            breath.breathe().await?;
            let below = std::mem::take(&mut self.children[node as usize]);
            self.children[node as usize] = self.without_missing(below, |_| true);
        }
        let roots = std::mem::take(&mut self.roots);
        self.roots = self.without_missing(roots, |children| children.len() <= 1);
        Ok(())
    }

    fn without_missing(&mut self, level: Vec<u32>, goes: impl Fn(&[u32]) -> bool) -> Vec<u32> {
        let mut kept = Vec::with_capacity(level.len());
        for node in level {
            let at = node as usize;
            if self.messages[at].is_none() && goes(&self.children[at]) {
                kept.append(&mut self.children[at]);
            } else {
                kept.push(node);
            }
        }
        kept
    }

    /// When a conversation was begun: where its first message is missing, by the first of those below it.
    fn sent(&self, node: u32) -> (i64, u32) {
        let of = |node: u32| self.messages[node as usize].as_ref().map(|m| (m.sent_unix_seconds, m.number));
        let below = || self.children[node as usize].iter().filter_map(|child| of(*child)).min();
        of(node).or_else(below).unwrap_or_default()
    }

    fn sort_roots(&mut self) {
        let mut roots = std::mem::take(&mut self.roots);
        roots.sort_by_cached_key(|root| self.sent(*root));
        self.roots = roots;
    }

    async fn sort_all<B: Breath>(&mut self, breath: &mut B) -> Result<(), B::Error> {
        for at in 0..self.children.len() {
            breath.breathe().await?;
            let mut below = std::mem::take(&mut self.children[at]);
            below.sort_by_cached_key(|child| self.sent(*child));
            self.children[at] = below;
        }
        self.sort_roots();
        Ok(())
    }

    /// The first message of a conversation; where it is missing, the first of those below it.
    fn first(&self, root: u32) -> Option<&Message> {
        let of = |node: u32| self.messages[node as usize].as_ref();
        of(root).or_else(|| {
            self.children[root as usize]
                .iter()
                .filter_map(|child| of(*child))
                .min_by_key(|m| (m.sent_unix_seconds, m.number))
        })
    }

    /// Conversations about one thing become one.
    async fn join_subjects<B: Breath>(&mut self, breath: &mut B) -> Result<(), B::Error> {
        let mut of: BTreeMap<String, u32> = BTreeMap::new();
        let is_reply = |message: &Option<Message>| message.as_ref().is_some_and(|m| m.subject.is_reply);
        for root in &self.roots {
            breath.breathe().await?;
            let Some(message) = self.first(*root).filter(|m| !m.subject.text.is_empty()) else { continue };
            let this = &self.messages[*root as usize];
            match of.get_mut(&message.subject.text) {
                None => drop(of.insert(message.subject.text.clone(), *root)),
                Some(that) => {
                    let other = &self.messages[*that as usize];
                    let is_missing = this.is_none() && other.is_some();
                    if is_missing || (is_reply(other) && !is_reply(this)) {
                        *that = *root;
                    }
                }
            }
        }
        let roots = std::mem::take(&mut self.roots);
        // Where a conversation is told whose first message became another one's answer.
        let mut instead: BTreeMap<u32, u32> = BTreeMap::new();
        let mut kept = Vec::with_capacity(roots.len());
        for root in roots {
            breath.breathe().await?;
            let subject = self.first(root).map(|m| m.subject.text.as_str()).filter(|text| !text.is_empty());
            let Some(that) = subject.and_then(|text| of.get(text)).copied().filter(|that| *that != root) else {
                kept.push(root);
                continue;
            };
            let joined = instead.get(&that).copied().unwrap_or(that);
            let (this, other) = (&self.messages[root as usize], &self.messages[joined as usize]);
            if this.is_none() && other.is_none() {
                let mut below = std::mem::take(&mut self.children[root as usize]);
                self.children[joined as usize].append(&mut below);
            } else if other.is_none() || (is_reply(this) && !is_reply(other)) {
                self.children[joined as usize].push(root);
            } else {
                let both = self.messages.len() as u32;
                self.messages.push(None);
                self.children.push(vec![joined, root]);
                instead.insert(that, both);
            }
        }
        self.roots = kept.into_iter().map(|root| instead.get(&root).copied().unwrap_or(root)).collect();
        Ok(())
    }
}

/// The ids in a field's value: what stands in angle brackets and has an at sign, without quotes and spaces.
fn ids(value: &[u8]) -> impl Iterator<Item = Box<[u8]>> {
    let mut rest = value;
    std::iter::from_fn(move || {
        loop {
            let open = memchr::memchr(b'<', rest)?;
            rest = &rest[open + 1..];
            // What is in another pair of brackets begins anew.
            let close = memchr::memchr2(b'<', b'>', rest)?;
            let inner = &rest[..close];
            rest = &rest[close..];
            if rest.starts_with(b">") && inner.contains(&b'@') {
                return Some(
                    inner
                        .iter()
                        .copied()
                        .filter(|b| !matches!(b, b'"' | b'\\' | b' ' | b'\t' | b'\r' | b'\n'))
                        .collect(),
                );
            }
        }
    })
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use std::collections::BTreeSet;
    use std::convert::Infallible;
    use std::pin::pin;
    use std::task::{Context, Poll, Waker};

    use proptest::prelude::*;

    use super::*;

    /// Counts, and never waits.
    #[derive(Default)]
    struct Breaths(usize);

    impl Breath for Breaths {
        type Error = Infallible;

        async fn breathe(&mut self) -> Result<(), Infallible> {
            self.0 += 1;
            Ok(())
        }
    }

    fn done<T>(future: impl Future<Output = T>) -> T {
        match pin!(future).poll(&mut Context::from_waker(Waker::noop())) {
            Poll::Ready(done) => done,
            Poll::Pending => panic!("nothing waits here"),
        }
    }

    fn message(number: u32, sent: i64, subject: &str) -> Threaded {
        Threaded { number, sent_unix_seconds: sent, subject: BaseSubject::of(subject.as_bytes()) }
    }

    fn printed(forest: &Forest) -> String {
        let mut out = String::new();
        for told in forest.conversations().flatten() {
            let space = if out.ends_with(|c: char| c.is_ascii_digit()) { " " } else { "" };
            match told {
                Told::Begin => out += &format!("{space}("),
                Told::Message(number) => out += &format!("{space}{number}"),
                Told::End => out += ")",
            }
        }
        out
    }

    /// Of (sent, subject, id, references).
    fn by_references(messages: &[(i64, &str, &str, &str)]) -> String {
        let (mut by, mut breaths) = (ByReferences::default(), Breaths::default());
        for (number, (sent, subject, id, references)) in (1..).zip(messages) {
            let added =
                by.add(message(number, *sent, subject), id.as_bytes(), references.as_bytes(), b"", &mut breaths);
            done(added).unwrap();
        }
        printed(&done(by.finish(&mut breaths)).unwrap())
    }

    #[test]
    fn those_of_one_subject_answer_the_first_one() {
        let mut by = BySubject::default();
        for (number, sent, subject) in
            [(1, 9, "b"), (2, 5, "Re: A"), (3, 3, "x"), (4, 2, "[l] a"), (5, 7, "a"), (6, 10, "re: B")]
        {
            by.add(message(number, sent, subject));
        }
        assert_eq!(printed(&done(by.finish(&mut Breaths::default())).unwrap()), "(4 (2)(5))(3)(1 6)");
    }

    #[test]
    fn answers_are_below_what_they_refer_to() {
        let chain = [(1, "a", "<1@x>", ""), (2, "re: a", "<2@x>", "<1@x>"), (3, "re: a", "<3@x>", "<1@x> <2@x>")];
        assert_eq!(by_references(&chain), "(1 2 3)");
        assert_eq!(by_references(&[chain[2], chain[1], chain[0]]), "(3 2 1)");
        let two = [(1, "a", "<1@x>", ""), (3, "re: a", "<2@x>", "<1@x>"), (2, "re: a", "<3@x>", "<1@x>")];
        assert_eq!(by_references(&two), "(1 (3)(2))");
        assert_eq!(by_references(&[(1, "a", "<1@x>", "<2@x>"), (2, "b", "<2@x>", "<1@x>")]), "(2 1)", "no circle");
        assert_eq!(by_references(&[(1, "a", "<1@x>", "<1@x>")]), "(1)");
    }

    #[test]
    fn what_is_missing_keeps_its_answers_together() {
        let missing = [(2, "a", "<1@x>", "<0@x>"), (1, "b", "<2@x>", "<0@x>")];
        assert_eq!(by_references(&missing), "((2)(1))");
        assert_eq!(by_references(&missing[..1]), "(1)");
        let deep = [(1, "a", "<1@x>", ""), (2, "b", "<2@x>", "<1@x> <gone@x>"), (3, "c", "<3@x>", "<1@x> <gone@x>")];
        assert_eq!(by_references(&deep), "(1 (2)(3))");
    }

    #[test]
    fn conversations_about_one_thing_become_one() {
        assert_eq!(by_references(&[(1, "Re: a", "<1@x>", ""), (2, "a", "<2@x>", "")]), "(2 1)");
        assert_eq!(
            by_references(&[(2, "a", "<1@x>", ""), (1, "a", "<2@x>", ""), (3, "a", "<3@x>", "")]),
            "((2)(1)(3))"
        );
        assert_eq!(by_references(&[(1, "", "<1@x>", ""), (2, "", "<2@x>", "")]), "(1)(2)");
        let missing = [
            (1, "a", "<1@x>", "<0@x>"),
            (2, "a", "<2@x>", "<0@x>"),
            (3, "a", "<3@x>", "<9@x>"),
            (4, "a", "<4@x>", "<9@x>"),
        ];
        assert_eq!(by_references(&missing), "((1)(2)(3)(4))");
        let and_one = [missing[0], missing[1], (0, "re: a", "<7@x>", "")];
        assert_eq!(by_references(&and_one), "((3)(1)(2))");
    }

    #[test]
    fn ids_of_every_form() {
        let all =
            |value: &str| ids(value.as_bytes()).map(|id| String::from_utf8(id.into()).unwrap()).collect::<Vec<_>>();
        assert_eq!(all("x <a@b>y<\"c\"@d>\r\n <e @f>"), ["a@b", "c@d", "e@f"]);
        assert_eq!(all("<none> <<a@b> <open@end"), ["a@b"]);
    }

    #[test]
    fn a_long_conversation_costs_little_in_whatever_order_it_comes() {
        let (mut by, mut breaths) = (ByReferences::default(), Breaths::default());
        for number in 1..=20_000u32 {
            // Every second one first, and their answers behind them.
            let at = if number <= 10_000 { 2 * number } else { 2 * (number - 10_000) - 1 };
            let (id, before) = (format!("<{at}@x>"), format!("<{}@x>", at - 1));
            let added = by.add(message(number, 0, "a"), id.as_bytes(), before.as_bytes(), b"", &mut breaths);
            done(added).unwrap();
        }
        assert!(by.memory_bytes() > 20_000 * NODE_MEMORY_BYTES);
        let forest = done(by.finish(&mut breaths)).unwrap();
        assert_eq!(forest.conversations().count(), 1);
        assert_eq!(forest.conversations().flatten().count(), 20_002);
        assert!(breaths.0 < 400_000, "{}", breaths.0);
    }

    proptest! {
        /// Whatever refers to what, each message is told once.
        #[test]
        fn every_message_is_told_once(messages in proptest::collection::vec(
            (0i64..5, proptest::sample::select(vec!["a", "re: a", "b", ""]), 0u32..8, proptest::collection::vec(0u32..8, 0..4)), 0..20)
        ) {
            let (mut by, mut breaths) = (ByReferences::default(), Breaths::default());
            for (number, (sent, subject, id, references)) in (1..).zip(&messages) {
                let references: String = references.iter().map(|n| format!("<{n}@x>")).collect();
                let id = format!("<{id}@x>");
                let message = message(number, *sent, subject);
                let added = by.add(message, id.as_bytes(), references.as_bytes(), b"", &mut breaths);
                done(added).unwrap();
            }
            let forest = done(by.finish(&mut breaths)).unwrap();
            let told: Vec<u32> = forest.conversations().flatten().filter_map(|told| if let Told::Message(n) = told { Some(n) } else { None }).collect();
            prop_assert_eq!(told.len(), messages.len());
            prop_assert_eq!(told.into_iter().collect::<BTreeSet<_>>().len(), messages.len());
        }
    }
}
