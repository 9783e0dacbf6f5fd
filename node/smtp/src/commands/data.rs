//! DATA (RFC 5321, section 4.1.1.4).

use crate::data::Data;
use crate::reply::line;
use crate::session::{Reading, Session};

pub fn run(session: &mut Session, argument: &[u8], out: &mut Vec<u8>) {
    if !argument.is_empty() {
        return session.wrong(out, "501 5.5.4 DATA takes no argument");
    }
    match &session.mail {
        None => session.wrong(out, "503 5.5.1 say MAIL first"),
        Some(mail) if mail.recipients.is_empty() => session.wrong(out, "554 5.5.1 no valid recipients"),
        Some(_) => {
            session.reading = Reading::Data(Data::new());
            line(out, "354 end with <CR><LF>.<CR><LF>");
        }
    }
}
