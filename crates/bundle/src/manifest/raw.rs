//! The bundle manifest as written: every key optional, every value with its line, unknown keys kept for the report.

use std::fmt;
use std::marker::PhantomData;

use serde::Deserialize;
use serde::de::value::MapAccessDeserializer;
use serde::de::{Deserializer, IgnoredAny, MapAccess, SeqAccess, Visitor};
use serde_saphyr::Spanned;

/// A value, or nothing where the key is absent or null.
pub(super) type Field<T> = Option<Spanned<Option<T>>>;

/// Declares a YAML mapping. Unlike a derived struct it does not stop at the first unknown key: all of them are reported together.
macro_rules! mapping {
    ($(#[$doc:meta])* $name:ident { $($field:ident: $type:ty = $key:literal,)* }) => {
        $(#[$doc])*
        #[derive(Default)]
        pub(super) struct $name {
            $(pub(super) $field: Field<$type>,)*
            pub(super) unknown: Vec<Spanned<String>>,
        }

        impl $name {
            pub(super) const KEYS: &'static [&'static str] = &[$($key),*];
        }

        impl<'de> Deserialize<'de> for $name {
            fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                struct Fields;
                impl<'de> Visitor<'de> for Fields {
                    type Value = $name;

                    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                        write!(f, "a mapping with {}", $name::KEYS.join(", "))
                    }

                    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<$name, A::Error> {
                        let mut fields = $name::default();
                        while let Some(key) = map.next_key::<Spanned<String>>()? {
                            match key.value.as_str() {
                                $($key => fields.$field = Some(map.next_value()?),)*
                                _ => {
                                    map.next_value::<IgnoredAny>()?;
                                    fields.unknown.push(key);
                                }
                            }
                        }
                        Ok(fields)
                    }
                }
                deserializer.deserialize_map(Fields)
            }
        }
    };
}

mapping! {
    /// The whole document.
    Document {
        name: String = "name",
        version: String = "version",
        platforms: OneOrMany = "platforms",
        layout: String = "layout",
        layers: String = "layers",
        mirrors: Entries<OneOrMany> = "mirrors",
        referrers: FlagOrMany = "referrers",
        verify: Entries<FlagOrMany> = "verify",
        images: Vec<Spanned<Item>> = "images",
        yaml: OneOrMany = "yaml",
        set: Vec<Spanned<Set>> = "set",
        ignore: Vec<Spanned<IgnoreItem>> = "ignore",
        files: OneOrMany = "files",
    }
}

mapping! {
    /// An entry of `images:` written as a mapping.
    ImageItem {
        image: String = "image",
        from: OneOrMany = "from",
        archive: String = "archive",
        archive_image: String = "archiveImage",
        target: String = "as",
        optional: bool = "optional",
        platforms: OneOrMany = "platforms",
        referrers: FlagOrMany = "referrers",
        verify: FlagOrMany = "verify",
    }
}

mapping! {
    /// An entry of `set:`.
    Set {
        file: String = "file",
        kind: String = "kind",
        path: String = "path",
        paths: OneOrMany = "paths",
        form: String = "form",
        image: String = "image",
    }
}

mapping! {
    /// An entry of `ignore:`.
    IgnoreItem {
        image: String = "image",
        reason: String = "reason",
    }
}

/// An entry of `images:`: a reference, or a mapping.
pub(super) enum Item {
    Reference(String),
    Image(Box<ImageItem>),
}

impl<'de> Deserialize<'de> for Item {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Either;
        impl<'de> Visitor<'de> for Either {
            type Value = Item;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an image reference, or a mapping with `image:`")
            }

            fn visit_str<E>(self, text: &str) -> Result<Item, E> {
                Ok(Item::Reference(text.to_owned()))
            }

            fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<Item, A::Error> {
                ImageItem::deserialize(MapAccessDeserializer::new(map)).map(|image| Item::Image(Box::new(image)))
            }
        }
        deserializer.deserialize_any(Either)
    }
}

/// A list of texts, or one text alone.
pub(super) struct OneOrMany(pub(super) Vec<Spanned<String>>);

impl<'de> Deserialize<'de> for OneOrMany {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Either;
        impl<'de> Visitor<'de> for Either {
            type Value = Vec<Spanned<String>>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a text, or a list of texts")
            }

            fn visit_str<E>(self, text: &str) -> Result<Self::Value, E> {
                Ok(vec![alone(text)])
            }

            fn visit_seq<A: SeqAccess<'de>>(self, seq: A) -> Result<Self::Value, A::Error> {
                elements(seq)
            }
        }
        deserializer.deserialize_any(Either).map(Self)
    }
}

/// `true` or `false`, or texts.
pub(super) enum FlagOrMany {
    Flag(bool),
    Many(OneOrMany),
}

impl<'de> Deserialize<'de> for FlagOrMany {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Any;
        impl<'de> Visitor<'de> for Any {
            type Value = FlagOrMany;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("`true`, `false`, a text, or a list of texts")
            }

            fn visit_bool<E>(self, flag: bool) -> Result<Self::Value, E> {
                Ok(FlagOrMany::Flag(flag))
            }

            fn visit_str<E>(self, text: &str) -> Result<Self::Value, E> {
                Ok(FlagOrMany::Many(OneOrMany(vec![alone(text)])))
            }

            fn visit_seq<A: SeqAccess<'de>>(self, seq: A) -> Result<Self::Value, A::Error> {
                elements(seq).map(OneOrMany).map(FlagOrMany::Many)
            }
        }
        deserializer.deserialize_any(Any)
    }
}

/// One text in the place of a list; its line is that of the key's value, which the caller knows.
fn alone(text: &str) -> Spanned<String> {
    Spanned::new(text.to_owned(), serde_saphyr::Location::UNKNOWN, serde_saphyr::Location::UNKNOWN)
}

fn elements<'de, T: Deserialize<'de>, A: SeqAccess<'de>>(mut seq: A) -> Result<Vec<T>, A::Error> {
    let mut all = Vec::new();
    while let Some(one) = seq.next_element()? {
        all.push(one);
    }
    Ok(all)
}

/// A mapping with free keys, in the order written.
pub(super) struct Entries<T>(pub(super) Vec<(Spanned<String>, Spanned<T>)>);

impl<'de, T: Deserialize<'de>> Deserialize<'de> for Entries<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct All<T>(PhantomData<T>);
        impl<'de, T: Deserialize<'de>> Visitor<'de> for All<T> {
            type Value = Entries<T>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a mapping")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
                let mut all = Vec::new();
                while let Some(entry) = map.next_entry()? {
                    all.push(entry);
                }
                Ok(Entries(all))
            }
        }
        deserializer.deserialize_map(All(PhantomData))
    }
}
