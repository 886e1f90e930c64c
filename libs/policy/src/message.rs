//! Documents that are the proto3 JSON of a message, written by hand where every call makes one.
//!
//! Members at their default are left out, int64 are texts, and int32 are numbers. The names of members are made
//! once for each thread: a name costs no allocation, and no count that other cores change.

use std::{sync::Arc, thread::LocalKey};

use regorus::{Value, value::Object};

use crate::document::Document;

/// The name of a member; [`names!`](crate::names) makes them.
#[derive(Debug, Clone, Copy)]
pub struct Name(&'static LocalKey<Arc<str>>);

impl Name {
    /// For [`names!`](crate::names).
    pub const fn new(text: &'static LocalKey<Arc<str>>) -> Self {
        Self(text)
    }

    fn text(self) -> Arc<str> {
        self.0.with(Arc::clone)
    }
}

/// Makes constants of type [`Name`], each of a text: `names! { DOMAIN = "domain"; }`.
#[macro_export]
macro_rules! names {
    ($($name:ident = $text:literal;)*) => {
        $(const $name: $crate::Name = {
            ::std::thread_local! {
                static TEXT: ::std::sync::Arc<str> = ::std::sync::Arc::from($text);
            }
            $crate::Name::new(&TEXT)
        };)*
    };
}

/// The proto3 JSON of a message, member by member.
#[derive(Default)]
pub struct Message(Object);

impl Message {
    /// A message with every member at its default.
    pub fn new() -> Self {
        Self::default()
    }

    /// A member, whatever it is.
    #[must_use]
    pub fn member(mut self, name: Name, value: impl Into<Document>) -> Self {
        self.0
            .insert(Value::String(name.text()), value.into().into_value());
        self
    }

    /// A member that may be absent.
    #[must_use]
    pub fn optional(self, name: Name, value: Option<impl Into<Document>>) -> Self {
        match value {
            Some(value) => self.member(name, value),
            None => self,
        }
    }

    /// A string.
    #[must_use]
    pub fn text(self, name: Name, text: &str) -> Self {
        self.optional(name, (!text.is_empty()).then_some(text))
    }

    /// A bool.
    #[must_use]
    pub fn flag(self, name: Name, flag: bool) -> Self {
        self.optional(name, flag.then_some(true))
    }

    /// An int32.
    #[must_use]
    pub fn int32(self, name: Name, number: i32) -> Self {
        self.optional(name, (number != 0).then_some(number))
    }

    /// An int64.
    #[must_use]
    pub fn int64(self, name: Name, number: i64) -> Self {
        self.optional(name, (number != 0).then(|| int64(number)))
    }

    /// A repeated field.
    #[must_use]
    pub fn list(self, name: Name, items: impl ExactSizeIterator<Item = Document>) -> Self {
        let some = items.len() > 0;
        self.optional(name, some.then(|| Document::array(items)))
    }

    /// The document.
    pub fn done(self) -> Document {
        Document::of(Value::Object(Arc::new(self.0)))
    }
}

impl From<Message> for Document {
    fn from(message: Message) -> Self {
        message.done()
    }
}

impl std::fmt::Debug for Message {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Message")
    }
}

/// An int64 as proto3 JSON has it: a text.
pub fn int64(number: i64) -> Document {
    Document::from(itoa::Buffer::new().format(number))
}
