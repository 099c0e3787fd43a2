//! Why a call failed: the strings that clients may match on, and the gRPC code of each.
//!
//! Reasons are API: none is ever removed or renamed. The code belongs to the reason, so that no two places can answer the
//! same failure differently.

use std::fmt;

use tonic::Code;

/// `ErrorInfo.domain` of every failure.
pub const DOMAIN: &str = "switchboard";

/// Keys of `ErrorInfo.metadata`.
pub mod key {
    /// The correlation id of the call, as in the metadata `x-request-id`.
    pub const REQUEST_ID: &str = "request_id";
    /// The feature, `features/{machine_name}`.
    pub const FEATURE: &str = "feature";
    /// The model, `models/{id}`.
    pub const MODEL: &str = "model";
    /// `true` when a part of the answer was sent before the failure.
    pub const PARTIAL: &str = "partial";
    /// How many events of the answer were sent before the failure: near enough to tokens.
    pub const TOKENS_SENT: &str = "tokens_sent";
    /// How many times a model server was tried.
    pub const ATTEMPTS: &str = "attempts";
    /// The HTTP status that the model server answered with.
    pub const UPSTREAM_STATUS: &str = "upstream_status";
    /// The limit that was passed: in bytes, or how many calls at a time.
    pub const LIMIT: &str = "limit";
    /// The revision of the configuration, or of the resource that has changed.
    pub const REVISION: &str = "revision";
    /// The incarnation of the store.
    pub const INCARNATION: &str = "incarnation";
    /// The field of the request that names what is taken.
    pub const FIELD: &str = "field";
    /// How old the configuration in use is, in seconds since the registry was last heard.
    pub const CONFIG_AGE: &str = "config_age";
    /// The credential id that is valid now.
    pub const CREDENTIAL_ID: &str = "credential_id";
    /// The oldest revision that deltas can be served from.
    pub const OLDEST: &str = "oldest";
    /// The newest revision.
    pub const NEWEST: &str = "newest";
    /// The ids of the routers that a revision is not in force on, with blanks between; the first of them.
    pub const ROUTERS: &str = "routers";
    /// How many routers these are in all; or how many are connected.
    pub const ROUTER_COUNT: &str = "router_count";
    /// Where in the call the time ran out.
    pub const STAGE: &str = "stage";
}

/// Response metadata of calls that change something or are answered by a model.
pub mod header {
    /// The correlation id, in both directions.
    pub const REQUEST_ID: &str = "x-request-id";
    /// GitLab's correlation id, read when there is no [`REQUEST_ID`].
    pub const CORRELATION_ID: &str = "x-gitlab-correlation-id";
    /// The revision of a write, or of the configuration that selected a model.
    pub const REVISION: &str = "x-switchboard-revision";
    /// The incarnation of the store in which a write was made.
    pub const INCARNATION: &str = "x-switchboard-incarnation";
    /// The model that answers.
    pub const MODEL: &str = "x-switchboard-model";
    /// Why that model answers.
    pub const REASON: &str = "x-switchboard-reason";
}

macro_rules! reasons {
    ($($(#[$doc:meta])* $variant:ident = $text:literal, $code:ident;)*) => {
        /// Why a call failed: `ErrorInfo.reason`.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
        pub enum Reason { $($(#[$doc])* $variant,)* }

        impl Reason {
            /// Every reason, for tests and documentation.
            pub const ALL: &'static [Self] = &[$(Self::$variant,)*];

            /// The text that clients match on.
            #[must_use]
            pub const fn as_str(self) -> &'static str {
                match self { $(Self::$variant => $text,)* }
            }

            /// The gRPC code that goes with it.
            #[must_use]
            pub const fn code(self) -> Code {
                match self { $(Self::$variant => Code::$code,)* }
            }
        }

        impl fmt::Display for Reason {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(self.as_str())
            }
        }
    };
}

reasons! {
    /// Fields of the request are invalid, for more than one reason or for one that only fields have.
    ValidationFailed = "VALIDATION_FAILED", InvalidArgument;
    /// A field names a family that is not in the catalogue.
    FamilyUnknown = "FAMILY_UNKNOWN", InvalidArgument;
    /// A model's family cannot serve a feature.
    FamilyNotCompatible = "FAMILY_NOT_COMPATIBLE", InvalidArgument;
    /// A family or feature in beta while beta is off.
    BetaNotEnabled = "BETA_NOT_ENABLED", FailedPrecondition;
    /// The credential id is not the model's current one.
    CredentialSuperseded = "CREDENTIAL_SUPERSEDED", FailedPrecondition;
    /// The commit failed, and whether the write was made could not be learnt.
    WriteOutcomeUnknown = "WRITE_OUTCOME_UNKNOWN", Unavailable;
    /// The model that the call is about does not exist.
    ModelNotFound = "MODEL_NOT_FOUND", NotFound;
    /// The feature that the call is about does not exist.
    FeatureNotFound = "FEATURE_NOT_FOUND", NotFound;
    /// The id or the display name belongs to another model.
    ModelNameTaken = "MODEL_NAME_TAKEN", AlreadyExists;
    /// The request id stands for another write already.
    IdempotencyKeyReused = "IDEMPOTENCY_KEY_REUSED", AlreadyExists;
    /// The model cannot be deleted while features name it.
    ModelInUse = "MODEL_IN_USE", FailedPrecondition;
    /// The etag is not the current one.
    RevisionConflict = "REVISION_CONFLICT", Aborted;
    /// The disk is full.
    StorageFull = "STORAGE_FULL", ResourceExhausted;
    /// The database is locked by somebody else.
    StorageBusy = "STORAGE_BUSY", Unavailable;
    /// The database is damaged.
    StorageCorrupt = "STORAGE_CORRUPT", DataLoss;
    /// The database cannot be written.
    StorageReadOnly = "STORAGE_READ_ONLY", FailedPrecondition;
    /// The changes since the cursor, or since the revision to restore, are no longer kept.
    RevisionCompacted = "REVISION_COMPACTED", OutOfRange;
    /// The cursor, or the call, is of a revision that is not yet.
    RevisionInFuture = "REVISION_IN_FUTURE", OutOfRange;
    /// The cursor or the revision is of another store, incarnation or history.
    StoreIncarnationChanged = "STORE_INCARNATION_CHANGED", FailedPrecondition;
    /// The cursor is unreadable, of another view, or its state is wrong.
    CursorInvalid = "CURSOR_INVALID", InvalidArgument;
    /// No router is connected, or fewer than have to be.
    NoRouterConnected = "NO_ROUTER_CONNECTED", FailedPrecondition;
    /// The revision was not applied everywhere in time.
    RevisionNotApplied = "REVISION_NOT_APPLIED", DeadlineExceeded;
    /// A router cannot use an item of the revision.
    RevisionRefused = "REVISION_REFUSED", FailedPrecondition;
    /// A message on the change stream is out of order or cannot be true.
    StreamProtocolViolation = "STREAM_PROTOCOL_VIOLATION", InvalidArgument;
    /// The reader of the change stream does not read.
    WatchTooSlow = "WATCH_TOO_SLOW", ResourceExhausted;
    /// There are as many readers of the change stream, or waits for a revision, as there may be.
    WatchLimitReached = "WATCH_LIMIT_REACHED", ResourceExhausted;
    /// The router has no configuration yet.
    ConfigNotLoaded = "CONFIG_NOT_LOADED", Unavailable;
    /// The router has no usable version of the model yet.
    ModelNotReady = "MODEL_NOT_READY", Unavailable;
    /// The model has as many calls as it may, and no place came free in time.
    ModelOverloaded = "MODEL_OVERLOADED", Unavailable;
    /// The feature has as many calls as it may.
    QuotaExceeded = "QUOTA_EXCEEDED", ResourceExhausted;
    /// Self-hosted inference is switched off.
    InferencePaused = "INFERENCE_PAUSED", FailedPrecondition;
    /// No feature has the name that the call asks for.
    FeatureUnknown = "FEATURE_UNKNOWN", NotFound;
    /// The feature is switched off.
    FeatureDisabled = "FEATURE_DISABLED", FailedPrecondition;
    /// Nobody was chosen to answer the feature.
    FeatureUnassigned = "FEATURE_UNASSIGNED", FailedPrecondition;
    /// GitLab's own cloud answers the feature.
    FeatureVendored = "FEATURE_VENDORED", FailedPrecondition;
    /// The model is disabled.
    ModelDisabled = "MODEL_DISABLED", FailedPrecondition;
    /// The model's API token was dropped and no other was given.
    ModelCredentialMissing = "MODEL_CREDENTIAL_MISSING", FailedPrecondition;
    /// The selected model's family cannot take this kind of input.
    InputNotSupported = "INPUT_NOT_SUPPORTED", FailedPrecondition;
    /// Too little of the deadline is left to try.
    DeadlineBudgetTooSmall = "DEADLINE_BUDGET_TOO_SMALL", DeadlineExceeded;
    /// The deadline passed.
    DeadlineExceeded = "DEADLINE_EXCEEDED", DeadlineExceeded;
    /// The caller went away.
    CallerCancelled = "CALLER_CANCELLED", Cancelled;
    /// The caller does not read.
    ClientTooSlow = "CLIENT_TOO_SLOW", ResourceExhausted;
    /// The service shuts down.
    ServerDraining = "SERVER_DRAINING", Unavailable;
    /// The message is larger than the service takes.
    MessageTooLarge = "MESSAGE_TOO_LARGE", ResourceExhausted;
    /// The model server could not be reached.
    UpstreamConnectFailed = "UPSTREAM_CONNECT_FAILED", Unavailable;
    /// The model server's name could not be resolved.
    UpstreamDnsFailed = "UPSTREAM_DNS_FAILED", Unavailable;
    /// The TLS handshake with the model server broke off.
    UpstreamTlsHandshakeFailed = "UPSTREAM_TLS_HANDSHAKE_FAILED", Unavailable;
    /// The model server's certificate is not trusted.
    UpstreamTlsUntrusted = "UPSTREAM_TLS_UNTRUSTED", FailedPrecondition;
    /// The model server sent no token in time.
    UpstreamFirstByteTimeout = "UPSTREAM_FIRST_BYTE_TIMEOUT", Unavailable;
    /// The model server fell silent within its answer.
    UpstreamIdleTimeout = "UPSTREAM_IDLE_TIMEOUT", Unavailable;
    /// The model server's answer ended before it was complete.
    UpstreamStreamTruncated = "UPSTREAM_STREAM_TRUNCATED", Unavailable;
    /// The model server failed.
    UpstreamServerError = "UPSTREAM_SERVER_ERROR", Unavailable;
    /// The model server has too much to do.
    UpstreamRateLimited = "UPSTREAM_RATE_LIMITED", ResourceExhausted;
    /// The model server does not accept the model's API token.
    UpstreamCredentialRejected = "UPSTREAM_CREDENTIAL_REJECTED", FailedPrecondition;
    /// The model server does not know the model, or the path.
    UpstreamModelNotFound = "UPSTREAM_MODEL_NOT_FOUND", FailedPrecondition;
    /// The model server does not accept the request.
    UpstreamRejectedRequest = "UPSTREAM_REJECTED_REQUEST", InvalidArgument;
    /// The input does not fit the model's context.
    ContextLengthExceeded = "CONTEXT_LENGTH_EXCEEDED", InvalidArgument;
    /// The model server answers with a redirect.
    UpstreamRedirectRefused = "UPSTREAM_REDIRECT_REFUSED", FailedPrecondition;
    /// What answers is no model server.
    UpstreamUnexpectedContentType = "UPSTREAM_UNEXPECTED_CONTENT_TYPE", FailedPrecondition;
    /// The model server's answer is malformed.
    UpstreamProtocolError = "UPSTREAM_PROTOCOL_ERROR", Internal;
    /// The model server's answer is not UTF-8.
    UpstreamInvalidUtf8 = "UPSTREAM_INVALID_UTF8", Internal;
    /// The model server's answer is larger than is taken.
    UpstreamResponseTooLarge = "UPSTREAM_RESPONSE_TOO_LARGE", Internal;
    /// A mistake of Switchboard's own.
    InternalError = "INTERNAL_ERROR", Internal;
    /// There is no such method.
    MethodUnknown = "METHOD_UNKNOWN", Unimplemented;
    /// The request is compressed.
    EncodingNotSupported = "ENCODING_NOT_SUPPORTED", Unimplemented;
}

macro_rules! field_reasons {
    ($($(#[$doc:meta])* $variant:ident = $text:literal $(, $shared:ident)?;)*) => {
        /// Why a field is invalid: `reason` of a `BadRequest.field_violation`.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
        pub enum FieldReason { $($(#[$doc])* $variant,)* }

        impl FieldReason {
            /// Every field reason, for tests and documentation.
            pub const ALL: &'static [Self] = &[$(Self::$variant,)*];

            /// The text that clients match on.
            #[must_use]
            pub const fn as_str(self) -> &'static str {
                match self { $(Self::$variant => $text,)* }
            }

            /// The reason of the whole failure when every bad field has this one; without one of its own,
            /// [`Reason::ValidationFailed`].
            #[must_use]
            pub const fn shared(self) -> Reason {
                match self {
                    $($(Self::$variant => Reason::$shared,)?)*
                    _ => Reason::ValidationFailed,
                }
            }
        }

        impl fmt::Display for FieldReason {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(self.as_str())
            }
        }
    };
}

field_reasons! {
    /// A required field is absent or empty.
    FieldRequired = "FIELD_REQUIRED";
    /// A mask names a field that does not exist.
    FieldUnknown = "FIELD_UNKNOWN";
    /// A mask names a field that cannot be set.
    FieldOutputOnly = "FIELD_OUTPUT_ONLY";
    /// An update that sets nothing.
    UpdateEmpty = "UPDATE_EMPTY";
    /// A number, a length or a count is outside its range.
    ValueOutOfRange = "VALUE_OUT_OF_RANGE";
    /// A text is not spelled as it must be.
    ValueMalformed = "VALUE_MALFORMED";
    /// An enum value that is unknown or unspecified.
    ValueUnknown = "VALUE_UNKNOWN";
    /// A list has an entry twice.
    ValueRepeated = "VALUE_REPEATED";
    /// A name is longer than it may be.
    NameTooLong = "NAME_TOO_LONG";
    /// An endpoint is no URL.
    EndpointMalformed = "ENDPOINT_MALFORMED";
    /// An endpoint's scheme is neither http nor https.
    EndpointSchemeUnsupported = "ENDPOINT_SCHEME_UNSUPPORTED";
    /// An endpoint has a user or a password in it.
    EndpointHasUserinfo = "ENDPOINT_HAS_USERINFO";
    /// An endpoint has a query in it.
    EndpointHasQuery = "ENDPOINT_HAS_QUERY";
    /// An endpoint has a fragment in it.
    EndpointHasFragment = "ENDPOINT_HAS_FRAGMENT";
    /// `endpoint` beside `endpoints`, or where more than one endpoint is stored.
    EndpointAmbiguous = "ENDPOINT_AMBIGUOUS";
    /// An identifier's prefix names a platform that the model is not on.
    IdentifierPlatformMismatch = "IDENTIFIER_PLATFORM_MISMATCH";
    /// A platform that this version does not speak to.
    PlatformNotSupported = "PLATFORM_NOT_SUPPORTED";
    /// What the model's platform does not have: an option, or a way to ask models of the family.
    PlatformMismatch = "PLATFORM_MISMATCH";
    /// A way of completing code that the model's family or platform cannot do.
    InfillModeNotSupported = "INFILL_MODE_NOT_SUPPORTED";
    /// A certificate that cannot be read, or something else among the certificates.
    CertificateMalformed = "CERTIFICATE_MALFORMED";
    /// An API token has characters other than visible ASCII.
    CredentialNotAscii = "CREDENTIAL_NOT_ASCII";
    /// `provider` contradicts `model`, `fallback_models` or `rules`.
    ProviderMismatch = "PROVIDER_MISMATCH";
    /// Features would reserve more places than their model, or they themselves, have.
    ReservationTooLarge = "RESERVATION_TOO_LARGE";
    /// A page token that this list did not give.
    PageTokenInvalid = "PAGE_TOKEN_INVALID";
    /// The family is not in the catalogue.
    FamilyUnknown = "FAMILY_UNKNOWN", FamilyUnknown;
    /// The family cannot serve the feature.
    FamilyNotCompatible = "FAMILY_NOT_COMPATIBLE", FamilyNotCompatible;
    /// The field names a model that does not exist.
    ModelNotFound = "MODEL_NOT_FOUND", ModelNotFound;
    /// The field names a feature that does not exist.
    FeatureNotFound = "FEATURE_NOT_FOUND", FeatureNotFound;
    /// The cursor is unreadable, of another view, or its state is wrong.
    CursorInvalid = "CURSOR_INVALID", CursorInvalid;
    /// The input that the model server does not accept.
    UpstreamRejectedRequest = "UPSTREAM_REJECTED_REQUEST", UpstreamRejectedRequest;
    /// The input that does not fit the model's context.
    ContextLengthExceeded = "CONTEXT_LENGTH_EXCEEDED", ContextLengthExceeded;
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    #[test]
    fn reasons_are_upper_snake_case_unique_and_short() {
        let texts: Vec<&str> = Reason::ALL.iter().map(|reason| reason.as_str()).collect();
        let fields: Vec<&str> = FieldReason::ALL.iter().map(|reason| reason.as_str()).collect();
        for list in [texts, fields] {
            assert_eq!(list.iter().collect::<HashSet<_>>().len(), list.len());
            for text in list {
                assert!(text.len() <= 63);
                assert!(
                    text.bytes()
                        .all(|b| b.is_ascii_uppercase() || b.is_ascii_digit() || b == b'_'),
                    "{text}"
                );
            }
        }
    }
}
