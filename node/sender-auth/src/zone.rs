//! A DNS for tests: a few records in lines of `name TYPE value`.

use std::collections::BTreeMap;
use std::future::Future;

use crate::dns::{Asker, Dns, NoAnswer, Question, Record};

#[derive(Default)]
pub struct Zone {
    records: BTreeMap<Question, Vec<Record>>,
    /// Names that get no answer.
    fails: Vec<String>,
    pub asked: std::sync::Mutex<Vec<Question>>,
}

impl Zone {
    pub fn read(text: &str) -> Self {
        let mut zone = Zone::default();
        for line in text.lines().map(str::trim).filter(|line| !line.is_empty()) {
            let (name, rest) = line.split_once(' ').unwrap();
            let (kind, value) = rest.split_once(' ').unwrap_or((rest, ""));
            zone.add(name, kind, value);
        }
        zone
    }

    pub fn add(&mut self, name: &str, kind: &str, value: &str) {
        let of = name.to_ascii_lowercase();
        let (question, record) = match kind {
            "TXT" => (Question::Txt(of), Record::Txt(value.as_bytes().to_vec())),
            "A" => (Question::A(of), Record::A(value.parse().unwrap())),
            "AAAA" => (Question::Aaaa(of), Record::Aaaa(value.parse().unwrap())),
            "PTR" => (Question::Ptr(name.parse().unwrap()), Record::Ptr(value.to_owned())),
            "MX" => {
                let (preference, exchange) = value.split_once(' ').unwrap();
                let (preference, exchange) = (preference.parse().unwrap(), exchange.to_owned());
                (Question::Mx(of), Record::Mx { preference, exchange })
            }
            "FAIL" => return self.fails.push(of),
            other => panic!("{other} is no type"),
        };
        self.records.entry(question).or_default().push(record);
    }

    /// Runs what asks it.
    pub fn run<'a, F: Future>(&'a self, check: impl FnOnce(&'a Asker<'a, Zone>) -> F) -> F::Output {
        // It lives as long as the test: there are few.
        let asker: &'a Asker<'a, Zone> = Box::leak(Box::new(Asker::new(self)));
        futures::executor::block_on(check(asker))
    }
}

impl Dns for Zone {
    async fn ask(&self, question: &Question) -> Result<Vec<Record>, NoAnswer> {
        self.asked.lock().unwrap().push(question.clone());
        let name = match question {
            Question::Txt(name) | Question::Mx(name) | Question::A(name) | Question::Aaaa(name) => name.clone(),
            Question::Ptr(address) => address.to_string(),
        };
        let name = name.trim_end_matches('.').to_ascii_lowercase();
        if self.fails.contains(&name) {
            return Err(NoAnswer);
        }
        let question = match question {
            Question::Txt(_) => Question::Txt(name),
            Question::Mx(_) => Question::Mx(name),
            Question::A(_) => Question::A(name),
            Question::Aaaa(_) => Question::Aaaa(name),
            Question::Ptr(address) => Question::Ptr(*address),
        };
        Ok(self.records.get(&question).cloned().unwrap_or_default())
    }
}
