//! What is asked of the DNS, and its answers.

use std::future::Future;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::sync::atomic::{AtomicUsize, Ordering};

use crate::limits::QUESTIONS_MAX;

/// The DNS, wherever its answers come from.
pub trait Dns: Sync {
    /// The records of a name; none if it has none of that type or is not there at all (a void lookup, RFC 7208, section
    /// 4.6.4).
    ///
    /// # Errors
    /// If nobody can say now.
    fn ask(&self, question: &Question) -> impl Future<Output = Result<Vec<Record>, NoAnswer>> + Send;
}

/// A question to the DNS.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Question {
    /// TXT records.
    Txt(String),
    /// MX records.
    Mx(String),
    /// A records.
    A(String),
    /// AAAA records.
    Aaaa(String),
    /// PTR records of an address's name below in-addr.arpa or ip6.arpa.
    Ptr(IpAddr),
}

/// A record that answers it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Record {
    /// Its strings, joined.
    Txt(Vec<u8>),
    /// A mail exchange.
    Mx {
        /// The smaller, the better.
        preference: u16,
        /// The host; `.` or empty says that no mail is taken.
        exchange: String,
    },
    /// An IPv4 address.
    A(Ipv4Addr),
    /// An IPv6 address.
    Aaaa(Ipv6Addr),
    /// A host's name.
    Ptr(String),
}

/// The DNS gave no answer: it was not reached in time, or could not say.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NoAnswer;

/// The DNS for one message: at most [`QUESTIONS_MAX`] questions.
pub(crate) struct Asker<'a, D> {
    dns: &'a D,
    left: AtomicUsize,
}

impl<'a, D: Dns> Asker<'a, D> {
    pub(crate) fn new(dns: &'a D) -> Self {
        Asker { dns, left: AtomicUsize::new(QUESTIONS_MAX) }
    }

    async fn ask(&self, question: Question) -> Result<Vec<Record>, NoAnswer> {
        let left = self.left.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |left| left.checked_sub(1));
        match left {
            Ok(_) => self.dns.ask(&question).await,
            Err(_) => Err(NoAnswer),
        }
    }

    pub(crate) async fn txt(&self, name: &str) -> Result<Vec<Vec<u8>>, NoAnswer> {
        let records = self.ask(Question::Txt(name.to_owned())).await?;
        Ok(records.into_iter().filter_map(|r| if let Record::Txt(text) = r { Some(text) } else { None }).collect())
    }

    /// The hosts, the preferred one first.
    pub(crate) async fn mx(&self, name: &str) -> Result<Vec<String>, NoAnswer> {
        let records = self.ask(Question::Mx(name.to_owned())).await?;
        let mx = |r| if let Record::Mx { preference, exchange } = r { Some((preference, exchange)) } else { None };
        let mut hosts: Vec<(u16, String)> = records.into_iter().filter_map(mx).collect();
        hosts.sort();
        Ok(hosts.into_iter().map(|(_, host)| host).collect())
    }

    /// Its addresses of the same family as this one.
    pub(crate) async fn addresses(&self, name: &str, like: IpAddr) -> Result<Vec<IpAddr>, NoAnswer> {
        let question = match like {
            IpAddr::V4(_) => Question::A(name.to_owned()),
            IpAddr::V6(_) => Question::Aaaa(name.to_owned()),
        };
        let address = |r| match r {
            Record::A(v4) => Some(IpAddr::V4(v4)),
            Record::Aaaa(v6) => Some(IpAddr::V6(v6)),
            Record::Txt(_) | Record::Mx { .. } | Record::Ptr(_) => None,
        };
        Ok(self
            .ask(question)
            .await?
            .into_iter()
            .filter_map(address)
            .filter(|a| a.is_ipv4() == like.is_ipv4())
            .collect())
    }

    pub(crate) async fn a(&self, name: &str) -> Result<Vec<IpAddr>, NoAnswer> {
        self.addresses(name, IpAddr::V4(Ipv4Addr::UNSPECIFIED)).await
    }

    pub(crate) async fn names(&self, address: IpAddr) -> Result<Vec<String>, NoAnswer> {
        let records = self.ask(Question::Ptr(address)).await?;
        Ok(records.into_iter().filter_map(|r| if let Record::Ptr(name) = r { Some(name) } else { None }).collect())
    }
}
