//! Whether an address and its name in the DNS name each other (RFC 8601, section 2.7.3).

use std::net::IpAddr;

use crate::dns::{Asker, Dns};
use crate::domain::Domain;
use crate::limits::IPREV_NAMES_MAX;

/// What came of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Iprev {
    /// This name of the address has the address.
    Pass(Domain),
    /// It has names, and none of them has it.
    Fail,
    /// The DNS did not answer.
    TempError,
    /// It has no name.
    PermError,
}

pub(crate) async fn check<D: Dns>(dns: &Asker<'_, D>, address: IpAddr) -> Iprev {
    let Ok(names) = dns.names(address).await else { return Iprev::TempError };
    if names.is_empty() {
        return Iprev::PermError;
    }
    let mut unanswered = false;
    for name in names.iter().take(IPREV_NAMES_MAX).filter_map(|name| Domain::parse(name)) {
        match dns.addresses(name.as_str(), address).await {
            Ok(addresses) if addresses.contains(&address) => return Iprev::Pass(name),
            Ok(_) => {}
            Err(_) => unanswered = true,
        }
    }
    if unanswered { Iprev::TempError } else { Iprev::Fail }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::zone::Zone;

    #[test]
    fn an_address_and_its_name_name_each_other() {
        let zone = Zone::read(
            "1.2.3.4 PTR other.test.\n1.2.3.4 PTR mx.test.\nmx.test A 1.2.3.4\n1.2.3.5 PTR mx.test.\n1.2.3.6 FAIL\n\
             1.2.3.7 PTR hangs.test.\nhangs.test FAIL\n2001:db8::1 PTR six.test.\nsix.test AAAA 2001:db8::1",
        );
        let of = |address: &str| zone.run(|dns| check(dns, address.parse().unwrap()));
        assert_eq!(of("1.2.3.4"), Iprev::Pass(Domain::parse("mx.test").unwrap()));
        assert_eq!(of("2001:db8::1"), Iprev::Pass(Domain::parse("six.test").unwrap()));
        assert_eq!(of("1.2.3.5"), Iprev::Fail);
        assert_eq!(of("1.2.3.6"), Iprev::TempError);
        assert_eq!(of("1.2.3.7"), Iprev::TempError);
        assert_eq!(of("1.2.3.8"), Iprev::PermError);
    }
}
