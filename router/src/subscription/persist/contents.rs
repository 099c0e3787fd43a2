//! Encodes and decodes the contents of the snapshot file before sealing: the number of the format, then a protobuf
//! message.
//!
//! The message is not part of the contract, because only routers write and read it. It contains the newest resources as
//! they were received, and the versions in use that cannot be derived from those.

use std::{
    collections::{BTreeSet, HashMap},
    sync::Arc,
    time::{Duration, SystemTime},
};

use prost::Message as _;
use secrecy::zeroize::{Zeroize as _, Zeroizing};
use switchboard::{
    endpoint::Origin,
    history::{Cursor, View},
    names::{CredentialId, Revision},
    pb::{registry, types},
    secret::ApiToken,
};

use super::{Kept, Restored};
use crate::{
    catalog::Credential,
    subscription::{
        compile::{self, Used, UsedFeature, UsedModel, UsedSettings},
        received::Received,
        resource::{Content, CredentialSpec, Resource},
    },
};

const FORMAT: u8 = 1;

/// Why the contents of a snapshot file cannot be used.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum ContentsError {
    /// This build does not know the format of the contents.
    #[error("the file has format {0}, which this version of the router does not know")]
    UnknownFormat(u8),
    /// The contents cannot be decoded, or contain impossible values.
    #[error("the contents cannot be decoded")]
    Unreadable,
    /// The resources do not have the digest of their cursor.
    #[error("the resources do not have the digest of their cursor")]
    StateMismatch,
}

#[derive(Clone, PartialEq, prost::Message)]
struct Contents {
    #[prost(message, optional, tag = "1")]
    cursor: Option<types::Cursor>,
    #[prost(message, repeated, tag = "2")]
    resources: Vec<registry::Resource>,
    #[prost(message, repeated, tag = "3")]
    models: Vec<OlderModel>,
    #[prost(message, repeated, tag = "4")]
    features: Vec<OlderFeature>,
    #[prost(message, optional, tag = "5")]
    settings: Option<StoredSettings>,
    #[prost(message, repeated, tag = "6")]
    credentials: Vec<Token>,
    #[prost(message, optional, tag = "7")]
    write_time: Option<prost_types::Timestamp>,
}

/// A model in use whose version is not the newest.
#[derive(Clone, PartialEq, prost::Message)]
struct OlderModel {
    #[prost(message, optional, tag = "1")]
    source: Option<registry::Resource>,
    #[prost(bool, tag = "2")]
    lacks_credential: bool,
}

/// A feature in use whose version is not the newest.
#[derive(Clone, PartialEq, prost::Message)]
struct OlderFeature {
    #[prost(message, optional, tag = "1")]
    source: Option<registry::Resource>,
    #[prost(int64, tag = "2")]
    revision: i64,
}

#[derive(Clone, PartialEq, prost::Message)]
struct StoredSettings {
    #[prost(int64, tag = "1")]
    revision: i64,
    #[prost(bool, tag = "2")]
    inference_paused: bool,
}

/// A credential in use. The token is overwritten when the value is dropped.
#[derive(Clone, PartialEq, prost::Message)]
#[prost(skip_debug)]
struct Token {
    #[prost(string, tag = "1")]
    id: String,
    #[prost(string, repeated, tag = "2")]
    origins: Vec<String>,
    #[prost(string, tag = "3")]
    api_token: String,
}

impl std::fmt::Debug for Token {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Token").field("id", &self.id).finish_non_exhaustive()
    }
}

impl Drop for Token {
    fn drop(&mut self) {
        self.api_token.zeroize();
    }
}

/// Encodes the state with the write time `now`.
pub(super) fn encode(kept: &Kept, now: SystemTime) -> Zeroizing<Vec<u8>> {
    let Kept { received, used } = kept;
    let settings = used.settings();
    let contents = Contents {
        cursor: Some(received.cursor().into()),
        resources: received.resources().values().map(|newest| sent(newest)).collect(),
        models: used
            .older_models(received)
            .map(|older| OlderModel {
                source: Some(sent(older.source())),
                lacks_credential: older.lacks_credential(),
            })
            .collect(),
        features: used
            .older_features(received)
            .map(|older| OlderFeature {
                source: Some(sent(older.source())),
                revision: older.revision().get(),
            })
            .collect(),
        settings: Some(StoredSettings {
            revision: settings.revision.get(),
            inference_paused: settings.inference_paused,
        }),
        credentials: used.credentials().map(|credential| token(credential)).collect(),
        write_time: Some(now.into()),
    };
    // The full capacity is reserved, because a growing buffer would leave copies of the tokens in memory.
    let mut bytes = Zeroizing::new(Vec::with_capacity(1 + contents.encoded_len()));
    bytes.push(FORMAT);
    contents.encode_raw(&mut *bytes);
    bytes
}

/// Decodes the output of [`encode`]. A version in use that this build cannot use is left out.
pub(super) fn decode(bytes: &[u8], now: SystemTime) -> Result<Restored, ContentsError> {
    let (&format, message) = bytes.split_first().ok_or(ContentsError::Unreadable)?;
    if format != FORMAT {
        return Err(ContentsError::UnknownFormat(format));
    }
    let mut contents = Contents::decode(message).map_err(|_undecodable| ContentsError::Unreadable)?;
    let cursor = contents
        .cursor
        .as_ref()
        .and_then(|cursor| Cursor::try_from(cursor).ok());
    let cursor = cursor
        .filter(|cursor| cursor.view == View::Router)
        .ok_or(ContentsError::Unreadable)?;
    let resources = contents.resources.into_iter().map(|resource| {
        let resource = read(Some(resource))?;
        Ok((Arc::clone(&resource.raw.name), resource))
    });
    let received = Received::from_snapshot(cursor, resources.collect::<Result<_, _>>()?)
        .map_err(|_mismatch| ContentsError::StateMismatch)?;

    let credentials: compile::CredentialsById = contents
        .credentials
        .iter_mut()
        .map(|token| credential(token).map(|credential| (credential.id, Arc::new(credential))))
        .collect::<Option<_>>()
        .ok_or(ContentsError::Unreadable)?;
    let mut models = Vec::new();
    for older in contents.models {
        let source = read(older.source)?;
        // The credential is absent if it was taken away from this version.
        let credential = own_credential(&source, &credentials);
        models.extend(UsedModel::from_source(&source, credential, older.lacks_credential));
    }
    // The newest features are versions in use as well, because they determine which models take calls.
    let newest = received.resources().values();
    let mut features: Vec<_> = newest.filter_map(UsedFeature::from_newest).collect();
    for older in contents.features {
        let revision = Revision::new(older.revision).ok_or(ContentsError::Unreadable)?;
        features.extend(UsedFeature::from_source(&read(older.source)?, revision));
    }
    let settings = contents.settings.unwrap_or_default();
    let settings = UsedSettings {
        revision: Revision::new(settings.revision).unwrap_or_default(),
        inference_paused: settings.inference_paused,
    };
    let write_time = contents.write_time.and_then(|time| SystemTime::try_from(time).ok());
    Ok(Restored {
        kept: Kept {
            used: Arc::new(Used::new(cursor.incarnation, models, features, settings)),
            received: Arc::new(received),
        },
        credentials,
        // If the clock was set back, the age is zero rather than negative.
        age: write_time.map_or(Duration::ZERO, |time| now.duration_since(time).unwrap_or_default()),
    })
}

/// Converts a resource back to the message that the registry sent.
fn sent(resource: &Resource) -> registry::Resource {
    let raw = &resource.raw;
    registry::Resource {
        name: raw.name.to_string(),
        create_revision: raw.create_revision.get(),
        revision: raw.revision.get(),
        payload: Some(prost_types::Any {
            type_url: raw.type_url.to_string(),
            value: raw.value.to_vec(),
        }),
        requires: raw.requires.clone(),
    }
}

fn read(resource: Option<registry::Resource>) -> Result<Arc<Resource>, ContentsError> {
    let read = resource.and_then(|resource| Resource::try_from(resource).ok());
    read.map(Arc::new).ok_or(ContentsError::Unreadable)
}

fn token(credential: &Credential) -> Token {
    Token {
        id: credential.id.to_string(),
        origins: credential.origins.iter().map(ToString::to_string).collect(),
        api_token: credential.token.expose().to_owned(),
    }
}

fn credential(token: &mut Token) -> Option<Credential> {
    let origins: Result<BTreeSet<Origin>, _> = token.origins.iter().map(|origin| Origin::parse(origin)).collect();
    Some(Credential {
        id: CredentialId::parse(&token.id).ok()?,
        origins: origins.ok()?,
        token: ApiToken::parse(std::mem::take(&mut token.api_token)).ok()?,
    })
}

/// Returns the credential that a version names, if its origins are exactly those that the version names.
fn own_credential(source: &Resource, credentials: &HashMap<CredentialId, Arc<Credential>>) -> Option<Arc<Credential>> {
    let Content::Model(_, content) = &source.content else {
        return None;
    };
    let Some(CredentialSpec::Set(own)) = &content.credential else {
        return None;
    };
    credentials
        .get(&own.id)
        .filter(|credential| credential.origins == own.origins)
        .cloned()
}
