//! Pages of lists. A page token contains the key of the last entry, so that writes between two pages do not shift
//! entries.

use switchboard::{reason::FieldReason, violation::Violations};

/// The requested page of a list.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Page {
    method: &'static str,
    size: usize,
    after: Option<String>,
}

impl Page {
    const SIZE_DEFAULT: usize = 50;
    const SIZE_MAX: usize = 1000;

    /// Reads `page_size` and `page_token` of a list method.
    ///
    /// # Errors
    ///
    /// Violations for a negative size, and for a token that does not come from this method.
    pub fn parse(method: &'static str, page_size: i32, page_token: &str) -> Result<Self, Violations> {
        let mut violations = Violations::new();
        let size = match usize::try_from(page_size) {
            Ok(0) => Self::SIZE_DEFAULT,
            Ok(size) => size.min(Self::SIZE_MAX),
            Err(_negative) => {
                violations.push("page_size", FieldReason::ValueOutOfRange, "must not be negative");
                Self::SIZE_DEFAULT
            }
        };
        let after = (!page_token.is_empty()).then(|| read_token(method, page_token));
        if after == Some(None) {
            violations.append(Self::unknown_token());
        }
        violations.or(Self {
            method,
            size,
            after: after.flatten(),
        })
    }

    /// Returns the key of the previous page's last entry. `None`: this is the first page.
    #[must_use]
    pub fn after(&self) -> Option<&str> {
        self.after.as_deref()
    }

    /// Returns the maximum number of entries.
    #[must_use]
    pub const fn size(&self) -> usize {
        self.size
    }

    /// Returns the token of the page that begins after the entry with this key.
    #[must_use]
    pub fn token(&self, key: &str) -> String {
        write_token(self.method, key)
    }

    /// Takes the entries of this page from `rest`, which begins after [`Self::after`]. Returns them with the token of
    /// the next page, which is empty if this is the last page.
    #[must_use]
    pub fn cut<T>(&self, rest: impl Iterator<Item = T>, key: impl FnOnce(&T) -> &str) -> (Vec<T>, String) {
        self.cut_while(rest, |_| true, key)
    }

    /// Like [`Self::cut`], for entries that may be large: the page ends before the first entry that does not fit, but
    /// has at least one entry.
    #[must_use]
    pub fn cut_while<T>(
        &self,
        rest: impl Iterator<Item = T>,
        mut fits: impl FnMut(&T) -> bool,
        key: impl FnOnce(&T) -> &str,
    ) -> (Vec<T>, String) {
        let mut rest = rest.peekable();
        let mut page = Vec::new();
        while page.len() < self.size
            && let Some(next) = rest.next_if(|next| fits(next) || page.is_empty())
        {
            page.push(next);
        }
        let token = match (page.last(), rest.peek()) {
            (Some(last), Some(_)) => write_token(self.method, key(last)),
            _ => String::new(),
        };
        (page, token)
    }

    /// Returns this page of a list in a fixed order, such as the catalogue's, and the token of the next page. Entries for
    /// which `is_listed` is false are left out, but a token may name one: what is listed may change between two pages.
    ///
    /// # Errors
    ///
    /// A violation if the token contains an entry that is not in the list.
    pub fn cut_slice<'a, T>(
        &self,
        list: &'a [T],
        key: impl Fn(&T) -> &str,
        is_listed: impl Fn(&T) -> bool,
    ) -> Result<(Vec<&'a T>, String), Violations> {
        let start = match self.after() {
            None => 0,
            Some(after) => {
                let index = list.iter().position(|entry| key(entry) == after);
                index.ok_or_else(Self::unknown_token)? + 1
            }
        };
        let rest = list.iter().skip(start).filter(|entry| is_listed(entry));
        Ok(self.cut(rest, |entry| key(entry)))
    }

    /// Returns the violation for a token that does not come from this method.
    #[must_use]
    pub fn unknown_token() -> Violations {
        let mut violations = Violations::new();
        violations.push(
            "page_token",
            FieldReason::PageTokenInvalid,
            "must be the `next_page_token` of an answer of this method, or empty for the first page",
        );
        violations
    }
}

fn write_token(method: &str, key: &str) -> String {
    let text = format!("{method}\n{key}");
    text.bytes().map(|byte| format!("{byte:02x}")).collect()
}

fn read_token(method: &str, token: &str) -> Option<String> {
    let (pairs, rest) = token.as_bytes().as_chunks::<2>();
    if !rest.is_empty() || !token.bytes().all(|byte| byte.is_ascii_hexdigit()) {
        return None;
    }
    let bytes: Option<Vec<u8>> = pairs
        .iter()
        .map(|pair| u8::from_str_radix(str::from_utf8(pair).ok()?, 16).ok())
        .collect();
    let text = String::from_utf8(bytes?).ok()?;
    let (of, key) = text.split_once('\n')?;
    (of == method).then(|| key.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIST: [&str; 3] = ["a", "b", "c"];

    #[test]
    fn pages_follow_one_another_to_the_end() {
        let mut token = String::new();
        let mut seen: Vec<&str> = Vec::new();
        for _ in 0..2 {
            let page = Page::parse("List", 2, &token).unwrap();
            let (entries, next) = page.cut_slice(&LIST, |entry| entry, |_| true).unwrap();
            seen.extend(entries.into_iter().copied());
            token = next;
        }
        assert_eq!(seen, LIST);
        assert_eq!(token, "");
        let whole = Page::parse("List", 3, "").unwrap();
        assert_eq!(whole.cut_slice(&LIST, |entry| entry, |_| true).unwrap().1, "");
    }

    #[test]
    fn a_page_ends_before_an_entry_that_does_not_fit_but_is_never_empty() {
        for (fitting, expected) in [(0, 1), (1, 1), (2, 2), (9, 3)] {
            let mut taken = 0;
            let fits = |_: &&&str| {
                taken += 1;
                taken <= fitting
            };
            let page = Page::parse("List", 0, "").unwrap();
            let (entries, token) = page.cut_while(LIST.iter(), fits, |entry| entry);
            assert_eq!(
                (entries.len(), token.is_empty()),
                (expected, expected == 3),
                "{fitting}"
            );
        }
    }

    #[test]
    fn a_size_has_a_default_and_a_limit() {
        for (size, taken) in [(0, 50), (7, 7), (1000, 1000), (1001, 1000), (i32::MAX, 1000)] {
            assert_eq!(Page::parse("List", size, "").unwrap().size, taken);
        }
    }

    #[test]
    fn a_token_belongs_to_its_method() {
        let (_, token) = Page::parse("List", 1, "").unwrap().cut(LIST.iter(), |entry| entry);
        assert!(Page::parse("List", 1, &token).is_ok());
        for bad in [token.as_str(), "x", "0", "zz", "ff", "+1", "ä"] {
            let violations = Page::parse("Other", -1, bad).unwrap_err();
            let reasons: Vec<_> = violations.as_slice().iter().map(|violation| violation.reason).collect();
            assert_eq!(
                reasons,
                [FieldReason::ValueOutOfRange, FieldReason::PageTokenInvalid],
                "{bad}"
            );
        }
        let gone = Page::parse("List", 1, &write_token("List", "z")).unwrap();
        assert!(gone.cut_slice(&LIST, |entry| entry, |_| true).is_err());
    }
}
