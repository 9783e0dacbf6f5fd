//! Where a message for a domain goes: the configuration's smart host, or what the DNS names, in the order in which they are
//! tried (`mailraft_outbound::route`).

use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use mailraft_outbound::outcome::{Diagnosis, Outcome, Phase};
use mailraft_outbound::reply::EnhancedCode;
use mailraft_outbound::route::{
    HostAddresses, Hosts, Lookup, MailExchange, Place, Reach, RouteRefusal, hosts, place, targets,
};
use mailraft_outbound::tls::dane::{Addresses, Dane, Security};
use tokio::time::Instant;

use super::Outbound;
use crate::config;

/// Hosts that are tried in one attempt.
pub const HOSTS_TRIED_MAX: usize = 5;
/// Addresses of one host that are tried in one attempt.
pub const ADDRESSES_TRIED_MAX: usize = 3;
/// The DNS is waited for at most this long in one attempt.
const DNS_MAX: Duration = Duration::from_secs(20);

/// A server that a message may go to.
pub struct Host {
    /// Its name.
    pub name: String,
    /// Where it is, in the order in which they are tried.
    pub addresses: Vec<SocketAddr>,
    /// What the domain's own records say of it; None for the configuration's smart host.
    pub found: Option<Found>,
}

/// What the DNS says of a host.
pub struct Found {
    /// How much is proved of what named it.
    pub mx: Security,
    /// What DANE says.
    pub dane: Dane,
}

/// The hosts for a domain, the first to be tried first.
///
/// # Errors
/// What became of the message, where there is none.
pub async fn hosts_of(outbound: &Outbound, domain: &str, config: &config::Outbound) -> Result<Vec<Host>, Outcome> {
    let refused = |refusal: RouteRefusal| refusal.outcome();
    let deadline = Instant::now() + DNS_MAX;
    if let Some(smart_host) = &config.smart_host {
        return of_smart_host(outbound, smart_host, deadline).await;
    }
    let reach = if config.private_addresses { Reach::Private } else { Reach::Public };
    let at = |address: IpAddr| SocketAddr::new(address, config.port);
    let (named, mx) = match place(domain).map_err(refused)? {
        Place::Address(address) => {
            let hosts = Hosts::Itself(domain.to_owned());
            let of = [both(domain.to_owned(), Lookup::Records(vec![address]))];
            let may = targets(domain, &hosts, &of, reach).map_err(refused)?;
            let found = Some(Found { mx: Security::Insecure, dane: Dane::Absent });
            let addresses = may.into_iter().map(|target| at(target.address)).collect();
            return Ok(vec![Host { name: domain.to_owned(), addresses, found }]);
        }
        Place::Domain(domain) => {
            let dns = outbound.dns.as_ref().ok_or_else(no_resolver)?;
            let (said, security) = match dns.mx(&domain, deadline).await {
                Ok(mx) => {
                    let of = |(preference, host)| MailExchange { preference, host };
                    (Lookup::Records(mx.hosts.into_iter().map(of).collect()), mx.security)
                }
                Err(_) => (Lookup::NoAnswer, Security::Insecure),
            };
            let ourselves = [(outbound.config)().tls.hostname.clone()];
            let chance = |bound: usize| rand::random_range(0..bound.max(1));
            (hosts(&domain, &said, &ourselves, chance).map_err(refused)?, security)
        }
    };
    let (names, is_itself) = match &named {
        Hosts::ByMx(names) => (names.clone(), false),
        Hosts::Itself(name) => (vec![name.clone()], true),
    };
    let dns = outbound.dns.as_ref().ok_or_else(no_resolver)?;
    let mut found = Vec::with_capacity(names.len());
    for name in &names {
        found.push(dns.addresses(name, deadline).await);
    }
    let addresses: Vec<HostAddresses> = names.iter().zip(&found).map(|(name, found)| of_host(name, found)).collect();
    let may = targets(domain, &named, &addresses, reach).map_err(refused)?;
    let mut all = Vec::new();
    for (name, found) in names.into_iter().zip(found) {
        let Ok((_, proved)) = found else { continue };
        let here = may.iter().filter(|target| target.host == name).map(|target| at(target.address));
        let addresses: Vec<SocketAddr> = here.take(ADDRESSES_TRIED_MAX).collect();
        if addresses.is_empty() || all.len() >= HOSTS_TRIED_MAX {
            continue;
        }
        // What proves that a domain is its own host is what proves its addresses: one zone has both.
        let mx = if is_itself { proved.security } else { mx };
        let dane = dns.dane(mx, &name, &proved, config.port, deadline).await;
        all.push(Host { name, addresses, found: Some(Found { mx, dane }) });
    }
    Ok(all)
}

type FoundAddresses = Result<(Vec<IpAddr>, Addresses), mailraft_sender_auth::NoAnswer>;

fn of_host(name: &str, found: &FoundAddresses) -> HostAddresses {
    let said = match found {
        Ok((addresses, _)) => Lookup::Records(addresses.clone()),
        Err(_) => Lookup::NoAnswer,
    };
    both(name.to_owned(), said)
}

fn both(host: String, said: Lookup<IpAddr>) -> HostAddresses {
    let Lookup::Records(all) = said else {
        return HostAddresses { host, v6: Lookup::NoAnswer, v4: Lookup::NoAnswer };
    };
    let (mut v6, mut v4) = (Vec::new(), Vec::new());
    for address in all {
        match address {
            IpAddr::V6(address) => v6.push(address),
            IpAddr::V4(address) => v4.push(address),
        }
    }
    HostAddresses { host, v6: Lookup::Records(v6), v4: Lookup::Records(v4) }
}

async fn of_smart_host(
    outbound: &Outbound,
    smart_host: &config::SmartHost,
    deadline: Instant,
) -> Result<Vec<Host>, Outcome> {
    let (name, port) = (smart_host.host.clone(), smart_host.port);
    let found = match (name.parse::<IpAddr>(), &outbound.dns) {
        (Ok(address), _) => vec![address],
        (Err(_), Some(dns)) => match dns.addresses(&name, deadline).await {
            Ok((found, _)) => found,
            Err(_) => return Err(RouteRefusal::NoAnswer(name).outcome()),
        },
        (Err(_), None) => return Err(no_resolver()),
    };
    if found.is_empty() {
        // The configuration's fault, which somebody mends while mail waits.
        return Err(waits(
            EnhancedCode::new(4, 4, 4),
            &format!("the smart host {name} of the configuration has no address"),
        ));
    }
    let addresses = found.into_iter().take(ADDRESSES_TRIED_MAX).map(|ip| SocketAddr::new(ip, port)).collect();
    Ok(vec![Host { name, addresses, found: None }])
}

fn waits(code: EnhancedCode, why: &str) -> Outcome {
    Outcome::deferred(Diagnosis::ours(None, Phase::Route, code, why))
}

fn no_resolver() -> Outcome {
    waits(
        EnhancedCode::new(4, 4, 3),
        "no resolver is known: name one in sender_auth.resolvers or /etc/resolv.conf, or a smart host in outbound.smart_host",
    )
}
