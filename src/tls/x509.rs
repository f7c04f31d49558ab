//! What a certificate says of itself: whom it is for and how long it is good.
//!
//! Owns: the few fields of X.509 that operators are told about. Decides nothing: verification is webpki's.

use std::net::IpAddr;

use crate::clock::UnixTime;

/// Validity and names of a certificate.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Certificate {
    /// DNS names and addresses of the subject's alternative names, in their order.
    pub names: Vec<String>,
    /// URIs of the subject's alternative names.
    pub uris: Vec<String>,
    /// Good from here on.
    pub not_before: UnixTime,
    /// Good until here.
    pub not_after: UnixTime,
}

/// How a certificate stands at one moment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Standing {
    /// Its time has not begun.
    Early,
    /// Good.
    Good,
    /// Good, but not for long: less than 14 days, or a fifth of its life if that is less.
    Ending,
    /// Its time is over.
    Expired,
}

const SEQUENCE: u8 = 0x30;
const EXPLICIT_0: u8 = 0xa0;
const EXPLICIT_3: u8 = 0xa3;
const OCTET_STRING: u8 = 0x04;
const OBJECT_IDENTIFIER: u8 = 0x06;
const BOOLEAN: u8 = 0x01;
const UTC_TIME: u8 = 0x17;
const GENERALIZED_TIME: u8 = 0x18;
const DNS_NAME: u8 = 0x82;
const URI: u8 = 0x86;
const IP_ADDRESS: u8 = 0x87;
/// id-ce-subjectAltName (RFC 5280, 4.2.1.6).
const SUBJECT_ALT_NAME: &[u8] = &[0x55, 0x1d, 0x11];
/// From when on an end is announced.
const NOTICE: i64 = 14 * 24 * 3600;

impl Certificate {
    /// Reads the DER of a certificate (RFC 5280, 4.1); `None` where it is none.
    pub fn read(der: &[u8]) -> Option<Self> {
        let mut certificate = Der(Der(der).take(SEQUENCE)?);
        let mut fields = Der(certificate.take(SEQUENCE)?);
        if fields.0.first() == Some(&EXPLICIT_0) {
            fields.next()?;
        }
        // Serial number, signature algorithm, issuer.
        for _ in 0..3 {
            fields.next()?;
        }
        let mut validity = Der(fields.take(SEQUENCE)?);
        let (not_before, not_after) = (time(validity.next()?)?, time(validity.next()?)?);
        let (mut names, mut uris) = (Vec::new(), Vec::new());
        while let Some((tag, content)) = fields.next() {
            if tag == EXPLICIT_3 {
                (names, uris) = alternative_names(content).unwrap_or_default();
            }
        }
        Some(Self { names, uris, not_before, not_after })
    }

    /// How it stands at `now`.
    pub fn standing(&self, now: UnixTime) -> Standing {
        let (begin, end, now) = (self.not_before.seconds(), self.not_after.seconds(), now.seconds());
        let notice = NOTICE.min(end.saturating_sub(begin) / 5);
        match () {
            () if now > end => Standing::Expired,
            () if now < begin => Standing::Early,
            () if end - now < notice => Standing::Ending,
            () => Standing::Good,
        }
    }
}

/// DER, element by element.
struct Der<'d>(&'d [u8]);

impl<'d> Der<'d> {
    /// The next element: its tag and content.
    fn next(&mut self) -> Option<(u8, &'d [u8])> {
        let (&tag, rest) = self.0.split_first()?;
        let (&first, rest) = rest.split_first()?;
        let (length, rest) = match first {
            0..=0x7f => (usize::from(first), rest),
            // 0x80 has no length: that is not DER.
            0x81..=0x84 => {
                let (bytes, rest) = rest.split_at_checked(usize::from(first - 0x80))?;
                (bytes.iter().fold(0, |length, byte| length << 8 | usize::from(*byte)), rest)
            }
            _ => return None,
        };
        let (content, rest) = rest.split_at_checked(length)?;
        self.0 = rest;
        Some((tag, content))
    }

    /// The content of the next element, which must have this tag.
    fn take(&mut self, tag: u8) -> Option<&'d [u8]> {
        self.next().filter(|(found, _)| *found == tag).map(|(_, content)| content)
    }
}

/// Names and addresses, and URIs.
fn alternative_names(extensions: &[u8]) -> Option<(Vec<String>, Vec<String>)> {
    let mut extensions = Der(Der(extensions).take(SEQUENCE)?);
    while let Some((_, extension)) = extensions.next() {
        let mut extension = Der(extension);
        if extension.take(OBJECT_IDENTIFIER)? != SUBJECT_ALT_NAME {
            continue;
        }
        if extension.0.first() == Some(&BOOLEAN) {
            extension.next()?;
        }
        let mut found = Der(Der(extension.take(OCTET_STRING)?).take(SEQUENCE)?);
        let (mut names, mut uris) = (Vec::new(), Vec::new());
        while let Some((tag, content)) = found.next() {
            match tag {
                DNS_NAME => names.extend(printable(content)),
                IP_ADDRESS => names.extend(address(content).map(|ip| ip.to_string())),
                URI => uris.extend(printable(content)),
                _ => {}
            }
        }
        return Some((names, uris));
    }
    None
}

/// A name comes from a file and goes to a terminal.
fn printable(content: &[u8]) -> Option<String> {
    let text = std::str::from_utf8(content).ok()?;
    text.bytes().all(|byte| byte.is_ascii_graphic()).then(|| text.to_owned())
}

fn address(content: &[u8]) -> Option<IpAddr> {
    let v4 = <[u8; 4]>::try_from(content).map(IpAddr::from).ok();
    v4.or_else(|| <[u8; 16]>::try_from(content).map(IpAddr::from).ok())
}

/// UTCTime or GeneralizedTime, both to the second and in UTC (RFC 5280, 4.1.2.5).
fn time((tag, content): (u8, &[u8])) -> Option<UnixTime> {
    let text = std::str::from_utf8(content).ok()?.strip_suffix('Z')?;
    let (year, rest) = match tag {
        UTC_TIME => {
            let (year, rest) = text.split_at_checked(2)?;
            let year: i64 = year.parse().ok()?;
            (if year < 50 { 2000 + year } else { 1900 + year }, rest)
        }
        GENERALIZED_TIME => {
            let (year, rest) = text.split_at_checked(4)?;
            (year.parse().ok()?, rest)
        }
        _ => return None,
    };
    if rest.len() != 10 || !text.bytes().all(|byte| byte.is_ascii_digit()) {
        return None;
    }
    let pair = |at: usize| rest[at..at + 2].parse::<i64>().ok();
    let (month, day) = (pair(0)?, pair(2)?);
    let seconds = pair(4)? * 3600 + pair(6)? * 60 + pair(8)?;
    if !(1..=12).contains(&month) || !(1..=31).contains(&day) {
        return None;
    }
    Some(UnixTime::from_millis((days_since_1970(year, month, day) * 86_400 + seconds) * 1000))
}

/// Years are counted from March, so that a leap day is the last of its year.
fn days_since_1970(year: i64, month: i64, day: i64) -> i64 {
    let year = if month <= 2 { year - 1 } else { year };
    let of_year = (153 * ((month + 9) % 12) + 2) / 5 + day - 1;
    year * 365 + year.div_euclid(4) - year.div_euclid(100) + year.div_euclid(400) + of_year - 719_468
}

#[cfg(test)]
mod tests {
    use super::*;

    fn certificate(change: impl FnOnce(&mut rcgen::CertificateParams)) -> Certificate {
        let key = rcgen::KeyPair::generate().expect("key");
        let names = ["a.example".to_owned(), "*.b.example".to_owned(), "192.0.2.1".to_owned()];
        let mut params = rcgen::CertificateParams::new(names).expect("params");
        change(&mut params);
        let certificate = params.self_signed(&key).expect("certificate");
        let read = Certificate::read(certificate.der()).expect("it can be read");
        for length in 0..certificate.der().len() {
            assert_eq!(Certificate::read(&certificate.der()[..length]), None, "{length}");
        }
        read
    }

    #[test]
    fn names_and_validity_are_read() {
        let check = |year: i32, expected: &str| {
            let read = certificate(|params| {
                params.not_before = rcgen::date_time_ymd(1999, 12, 31);
                params.not_after = rcgen::date_time_ymd(year, 2, 28);
            });
            assert_eq!(read.names, ["a.example", "*.b.example", "192.0.2.1"]);
            assert_eq!(read.not_before.rfc3339(), "1999-12-31T00:00:00Z");
            assert_eq!(read.not_after.rfc3339(), expected);
        };
        check(2027, "2027-02-28T00:00:00Z");
        check(2049, "2049-02-28T00:00:00Z");
        check(2052, "2052-02-28T00:00:00Z");
        assert_eq!(days_since_1970(2000, 2, 29), 11_016);
        assert_eq!(days_since_1970(2000, 3, 1), 11_017);
        assert_eq!(Certificate::read(b"no certificate"), None);
    }

    #[test]
    fn an_end_is_announced_in_proportion() {
        let day = 24 * 3600 * 1000;
        let check = |life: i64, at: i64, expected: Standing| {
            let certificate = Certificate {
                names: Vec::new(),
                uris: Vec::new(),
                not_before: UnixTime::from_millis(0),
                not_after: UnixTime::from_millis(life * day),
            };
            assert_eq!(certificate.standing(UnixTime::from_millis(at * day / 10)), expected, "{life} {at}");
        };
        check(90, -1, Standing::Early);
        check(90, 755, Standing::Good);
        check(90, 765, Standing::Ending);
        check(90, 901, Standing::Expired);
        check(5, 39, Standing::Good);
        check(5, 41, Standing::Ending);
    }
}
