//! Reads JSON member by member, so that a member of an unexpected type does not cost the others.
//!
//! Servers add members, rename them, and send other types than their documentation says. A member that cannot be read
//! is [`Member::Odd`]: it counts as absent, and its name is reported. Only text that is not JSON at all is an error.
//!
//! The one hard idea: text is kept as the bytes that the server meant, even if they are not valid Unicode by themselves,
//! because half a character may be completed by the next event. See [`crate::upstream::text`].

use std::{fmt, marker::PhantomData};

use serde::{
    Deserialize, Deserializer,
    de::{DeserializeSeed, Error as _, IgnoredAny, MapAccess, SeqAccess, Visitor},
};
use serde_json::value::RawValue;

use super::DialectError;
use crate::upstream::text::LooseText;

/// A member of a JSON object.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub(super) enum Member<T> {
    /// It is missing, or null.
    #[default]
    Absent,
    /// It has a value of the expected type.
    Given(T),
    /// It has a value of another type.
    Odd,
}

impl<T> Member<T> {
    /// The value. `None`: it is absent or odd.
    pub(super) fn given(self) -> Option<T> {
        match self {
            Self::Given(value) => Some(value),
            Self::Absent | Self::Odd => None,
        }
    }

    /// The value by reference. `None`: it is absent or odd.
    pub(super) const fn as_given(&self) -> Option<&T> {
        match self {
            Self::Given(value) => Some(value),
            Self::Absent | Self::Odd => None,
        }
    }

    /// Takes the value of a repeated member: the last one that can be read counts.
    pub(super) fn replace(&mut self, later: Self) {
        match (&self, &later) {
            (Self::Given(_), Self::Absent | Self::Odd) => {}
            _ => *self = later,
        }
    }
}

/// A type that a member can have.
pub(super) trait Lenient<'de>: Sized {
    /// Reads a value of any type. Fails only if the input is not JSON.
    fn read<D: Deserializer<'de>>(deserializer: D) -> Result<Member<Self>, D::Error>;

    /// Whether anything in the value is recognised, if only the name of a member.
    fn is_recognised(&self) -> bool {
        true
    }

    /// Adds the names of odd members below this value.
    fn odd(&self, _names: &mut Vec<&'static str>) {}
}

impl<'de, T: Lenient<'de>> Deserialize<'de> for Member<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        T::read(deserializer)
    }
}

/// Reads the JSON documents of a text: usually one, but some servers forget the blank line between two events.
///
/// # Errors
///
/// [`DialectError::Malformed`] if the text is not JSON.
pub(super) fn documents<'de, T: Lenient<'de>>(text: &'de str) -> Result<Vec<Member<T>>, DialectError> {
    let documents = serde_json::Deserializer::from_str(text).into_iter();
    documents
        .collect::<Result<_, _>>()
        .map_err(|_malformed| DialectError::Malformed)
}

/// Implements the methods of a visitor for the values that are not expected: they are read to their end, and odd.
macro_rules! odd_values {
    (@scalars) => {
        fn visit_bool<E>(self, _value: bool) -> Result<Self::Value, E> {
            Ok(Member::Odd)
        }

        fn visit_unit<E>(self) -> Result<Self::Value, E> {
            Ok(Member::Absent)
        }
    };
    (@numbers) => {
        fn visit_i64<E>(self, _value: i64) -> Result<Self::Value, E> {
            Ok(Member::Odd)
        }

        fn visit_u64<E>(self, _value: u64) -> Result<Self::Value, E> {
            Ok(Member::Odd)
        }

        fn visit_f64<E>(self, _value: f64) -> Result<Self::Value, E> {
            Ok(Member::Odd)
        }
    };
    (@text) => {
        fn visit_str<E>(self, _value: &str) -> Result<Self::Value, E> {
            Ok(Member::Odd)
        }
    };
    (@list) => {
        fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<Self::Value, A::Error> {
            while list.next_element::<IgnoredAny>()?.is_some() {}
            Ok(Member::Odd)
        }
    };
    (@object) => {
        fn visit_map<A: MapAccess<'de>>(self, mut object: A) -> Result<Self::Value, A::Error> {
            while object.next_entry::<IgnoredAny, IgnoredAny>()?.is_some() {}
            Ok(Member::Odd)
        }
    };
    ($($kind:ident),*) => {
        fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str("any JSON")
        }

        $(odd_values!(@$kind);)*
    };
}
pub(super) use odd_values;

/// A count. Some servers write it with a fraction, or as text.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Number(pub(super) i64);

impl<'de> Lenient<'de> for Number {
    fn read<D: Deserializer<'de>>(deserializer: D) -> Result<Member<Self>, D::Error> {
        struct NumberVisitor;

        impl<'de> Visitor<'de> for NumberVisitor {
            type Value = Member<Number>;

            odd_values!(scalars, list, object);

            fn visit_i64<E>(self, value: i64) -> Result<Self::Value, E> {
                Ok(Member::Given(Number(value)))
            }

            fn visit_u64<E>(self, value: u64) -> Result<Self::Value, E> {
                Ok(Member::Given(Number(i64::try_from(value).unwrap_or(i64::MAX))))
            }

            fn visit_f64<E>(self, value: f64) -> Result<Self::Value, E> {
                Ok(whole_number(value))
            }

            fn visit_str<E>(self, value: &str) -> Result<Self::Value, E> {
                match value.trim().parse::<i64>() {
                    Ok(value) => Ok(Member::Given(Number(value))),
                    Err(_no_integer) => Ok(value.trim().parse().map_or(Member::Odd, whole_number)),
                }
            }
        }

        deserializer.deserialize_any(NumberVisitor)
    }
}

/// A number without its fraction.
#[expect(
    clippy::cast_possible_truncation,
    reason = "a count beyond the range is the end of the range"
)]
fn whole_number(value: f64) -> Member<Number> {
    if value.is_finite() {
        Member::Given(Number(value as i64))
    } else {
        Member::Odd
    }
}

/// Any value, as it is written.
pub(super) type Raw<'de> = &'de RawValue;

impl<'de> Lenient<'de> for Raw<'de> {
    fn read<D: Deserializer<'de>>(deserializer: D) -> Result<Member<Self>, D::Error> {
        let raw = <&RawValue>::deserialize(deserializer)?;
        Ok(if raw.get() == "null" {
            Member::Absent
        } else {
            Member::Given(raw)
        })
    }
}

impl<'de> Lenient<'de> for LooseText {
    fn read<D: Deserializer<'de>>(deserializer: D) -> Result<Member<Self>, D::Error> {
        let raw = <&RawValue>::deserialize(deserializer)?.get();
        match raw.as_bytes().first() {
            Some(b'"') => string(raw).map(Member::Given).map_err(D::Error::custom),
            Some(b'n') => Ok(Member::Absent),
            _ => Ok(Member::Odd),
        }
    }
}

/// Reads a JSON string, of which halves of characters are kept.
pub(in crate::upstream) fn string(raw: &str) -> Result<LooseText, serde_json::Error> {
    struct BytesVisitor;

    impl Visitor<'_> for BytesVisitor {
        type Value = LooseText;

        fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str("a string")
        }

        fn visit_bytes<E>(self, bytes: &[u8]) -> Result<LooseText, E> {
            Ok(LooseText::new(bytes.to_vec()))
        }
    }

    serde_json::Deserializer::from_str(raw).deserialize_bytes(BytesVisitor)
}

/// A text that is compared or shown, not relayed: a type, an id, a name.
#[derive(Clone, PartialEq, Eq)]
pub(super) struct Word(pub(super) String);

impl<'de> Lenient<'de> for Word {
    fn read<D: Deserializer<'de>>(deserializer: D) -> Result<Member<Self>, D::Error> {
        Ok(match LooseText::read(deserializer)? {
            Member::Given(text) => Member::Given(Self(text.into_lossy())),
            Member::Absent => Member::Absent,
            Member::Odd => Member::Odd,
        })
    }
}

/// A list. Entries of another type than expected are left out.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct List<T> {
    pub(super) entries: Vec<T>,
    has_odd: bool,
}

impl<'de, T: Lenient<'de>> Lenient<'de> for List<T> {
    fn read<D: Deserializer<'de>>(deserializer: D) -> Result<Member<Self>, D::Error> {
        struct ListVisitor<T>(PhantomData<T>);

        impl<'de, T: Lenient<'de>> Visitor<'de> for ListVisitor<T> {
            type Value = Member<List<T>>;

            odd_values!(scalars, numbers, text, object);

            fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<Self::Value, A::Error> {
                let (mut entries, mut has_odd) = (Vec::new(), false);
                while let Some(entry) = list.next_element::<Member<T>>()? {
                    has_odd |= matches!(entry, Member::Odd);
                    entries.extend(entry.given());
                }
                Ok(Member::Given(List { entries, has_odd }))
            }
        }

        deserializer.deserialize_any(ListVisitor(PhantomData))
    }

    fn odd(&self, names: &mut Vec<&'static str>) {
        if self.has_odd {
            names.push("entry");
        }
        for entry in &self.entries {
            entry.odd(names);
        }
    }
}

/// The name of a member, as one of a list of names.
pub(super) struct Name(pub(super) &'static [&'static str]);

impl<'de> DeserializeSeed<'de> for Name {
    /// `None`: another name.
    type Value = Option<usize>;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Self::Value, D::Error> {
        struct NameVisitor(&'static [&'static str]);

        impl Visitor<'_> for NameVisitor {
            type Value = Option<usize>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("the name of a member")
            }

            fn visit_str<E>(self, name: &str) -> Result<Self::Value, E> {
                Ok(self.0.iter().position(|&known| known == name))
            }
        }

        deserializer.deserialize_str(NameVisitor(self.0))
    }
}

/// Defines an object whose members are read one by one. Members with other names are passed over.
macro_rules! object {
    ($(#[$attribute:meta])* struct $name:ident<$de:lifetime> { $($member:ident $(as $key:literal)?: $kind:ty),* $(,)? }) => {
        $(#[$attribute])*
        #[derive(Default)]
        pub(super) struct $name<$de> {
            $($member: $crate::upstream::dialect::lenient::Member<$kind>,)*
            lifetime: std::marker::PhantomData<&$de ()>,
        }

        impl<$de> $name<$de> {
            const NAMES: &'static [&'static str] = &[$(object!(@name $member $($key)?)),*];
        }

        impl<$de> $crate::upstream::dialect::lenient::Lenient<$de> for $name<$de> {
            fn read<D: serde::Deserializer<$de>>(
                deserializer: D,
            ) -> Result<$crate::upstream::dialect::lenient::Member<Self>, D::Error> {
                use $crate::upstream::dialect::lenient::{Member, Name, odd_values};
                use serde::de::{IgnoredAny, MapAccess, SeqAccess};
                use std::fmt;

                struct ObjectVisitor;

                impl<'de> serde::de::Visitor<'de> for ObjectVisitor {
                    type Value = Member<$name<'de>>;

                    odd_values!(scalars, numbers, text, list);

                    fn visit_map<A: MapAccess<'de>>(self, mut object: A) -> Result<Self::Value, A::Error> {
                        let mut read = $name::default();
                        while let Some(index) = object.next_key_seed(Name($name::NAMES))? {
                            let mut number = 0;
                            $(
                                if index == Some(number) {
                                    read.$member.replace(object.next_value()?);
                                    continue;
                                }
                                number += 1;
                            )*
                            let _ = number;
                            object.next_value::<IgnoredAny>()?;
                        }
                        Ok(Member::Given(read))
                    }
                }

                deserializer.deserialize_any(ObjectVisitor)
            }

            fn is_recognised(&self) -> bool {
                use $crate::upstream::dialect::lenient::Member;
                false $(|| !matches!(self.$member, Member::Absent))*
            }

            fn odd(&self, names: &mut Vec<&'static str>) {
                use $crate::upstream::dialect::lenient::Member;
                $(match &self.$member {
                    Member::Odd => names.push(object!(@name $member $($key)?)),
                    Member::Given(value) => $crate::upstream::dialect::lenient::Lenient::odd(value, names),
                    Member::Absent => {}
                })*
            }
        }
    };
    (@name $member:ident) => { stringify!($member) };
    (@name $member:ident $key:literal) => { $key };
}
pub(super) use object;
