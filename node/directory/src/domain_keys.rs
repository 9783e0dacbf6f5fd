//! Keys that sign a domain's mail: which there are, and which of them sign.
//!
//! One key of each algorithm signs. A new one is published first, then signs, and the one before it stays published until what
//! it signed has arrived: so a key changes without one message that can't be verified.

use mailraft_storage::UnixMillis;

use crate::api::{NewKey, Refusal};
use crate::names;
use crate::records::{
    DomainKey, DomainKeys, KEY_RECORD_MAX_BYTES, KEYS_MAX, KeyState, PublicKey, SECRET_KEY_MAX_BYTES,
};

/// Adds keys.
pub(crate) fn add(all: &mut DomainKeys, keys: &[NewKey], wall: UnixMillis) -> Result<(), Refusal> {
    for key in keys {
        let selector = names::selector(&key.selector).map_err(Refusal::BadName)?;
        let printable = !key.record.is_empty() && key.record.bytes().all(|b| matches!(b, b' '..=b'~'));
        if key.secret.0.len() > SECRET_KEY_MAX_BYTES || key.record.len() > KEY_RECORD_MAX_BYTES || !printable {
            return Err(Refusal::BadKey(selector));
        }
        if all.keys.iter().any(|there| there.public.selector == selector) {
            return Err(Refusal::KeyExists { name: all.name.clone(), selector });
        }
        if all.keys.len() == KEYS_MAX {
            return Err(Refusal::TooManyKeys(all.name.clone()));
        }
        let public = PublicKey {
            selector: selector.clone(),
            algorithm: key.algorithm,
            state: KeyState::Published,
            record: key.record.clone(),
            created: wall,
            since: wall,
        };
        all.keys.push(DomainKey { public, secret: key.secret.clone() });
        match key.state {
            KeyState::Published => {}
            KeyState::Signing => sign(all, &selector, wall)?,
            KeyState::Retired => retire(all, &selector, wall)?,
        }
    }
    Ok(())
}

/// A key signs, and the one of its algorithm that did retires.
pub(crate) fn sign(all: &mut DomainKeys, selector: &str, wall: UnixMillis) -> Result<(), Refusal> {
    let at = position(all, selector)?;
    let algorithm = all.keys[at].public.algorithm;
    for (other, key) in all.keys.iter_mut().enumerate() {
        if other != at && key.public.algorithm == algorithm && key.public.state == KeyState::Signing {
            become_at(&mut key.public, KeyState::Retired, wall);
        }
    }
    become_at(&mut all.keys[at].public, KeyState::Signing, wall);
    Ok(())
}

/// A key signs no more.
pub(crate) fn retire(all: &mut DomainKeys, selector: &str, wall: UnixMillis) -> Result<(), Refusal> {
    let at = position(all, selector)?;
    become_at(&mut all.keys[at].public, KeyState::Retired, wall);
    Ok(())
}

/// A key goes.
pub(crate) fn remove(all: &mut DomainKeys, selector: &str) -> Result<(), Refusal> {
    let at = position(all, selector)?;
    match all.keys[at].public.state {
        KeyState::Signing => {
            let selector = all.keys[at].public.selector.clone();
            Err(Refusal::KeySigns { name: all.name.clone(), selector })
        }
        KeyState::Published | KeyState::Retired => {
            all.keys.remove(at);
            Ok(())
        }
    }
}

fn position(all: &DomainKeys, selector: &str) -> Result<usize, Refusal> {
    let selector = names::selector(selector).map_err(Refusal::BadName)?;
    let found = all.keys.iter().position(|key| key.public.selector == selector);
    found.ok_or_else(|| Refusal::NoSuchKey { name: all.name.clone(), selector })
}

/// Said again it changes nothing.
fn become_at(key: &mut PublicKey, state: KeyState, wall: UnixMillis) {
    if key.state != state {
        (key.state, key.since) = (state, wall);
    }
}
