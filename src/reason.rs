//! The reasons for failures: the strings that clients may match on, and the gRPC code of each.
//!
//! Reasons are API: they are never removed or renamed. Each reason determines its gRPC code, so that both services
//! return the same code for the same failure.

use std::fmt;

use tonic::Code;

/// The value of `ErrorInfo.domain` in every failure.
pub const DOMAIN: &str = "switchboard";

/// Keys of `ErrorInfo.metadata`.
pub mod key {
    /// The correlation id of the call; the metadata `x-request-id` has the same value.
    pub const REQUEST_ID: &str = "request_id";
    /// The name of the feature, `features/{machine_name}`.
    pub const FEATURE: &str = "feature";
    /// The name of the model, `models/{id}`.
    pub const MODEL: &str = "model";
    /// The model server that the failure is about: scheme, host and port.
    pub const ENDPOINT: &str = "endpoint";
    /// `true` if a part of the answer was sent before the failure.
    pub const PARTIAL: &str = "partial";
    /// The number of events of the answer that were sent before the failure, which is about the number of tokens.
    pub const TOKENS_SENT: &str = "tokens_sent";
    /// The number of attempts at model servers.
    pub const ATTEMPTS: &str = "attempts";
    /// The HTTP status of the model server's response.
    pub const UPSTREAM_STATUS: &str = "upstream_status";
    /// The limit that was exceeded: a number of bytes, or a number of concurrent calls.
    pub const LIMIT: &str = "limit";
    /// The revision of the configuration, or the current revision of a resource that has changed.
    pub const REVISION: &str = "revision";
    /// The incarnation of the store.
    pub const INCARNATION: &str = "incarnation";
    /// The field of the request whose value is already taken by another model.
    pub const FIELD: &str = "field";
    /// The age of the configuration in use, in seconds since the last message from the registry.
    pub const CONFIG_AGE: &str = "config_age";
    /// The id of the model's current credential.
    pub const CREDENTIAL_ID: &str = "credential_id";
    /// The oldest revision from which deltas can be served.
    pub const OLDEST: &str = "oldest";
    /// The newest revision.
    pub const NEWEST: &str = "newest";
    /// The ids of the routers on which a revision is not in force, separated by spaces. Lists only the first of them.
    pub const ROUTERS: &str = "routers";
    /// The total number of routers on which a revision is not in force; or the number of connected routers.
    pub const ROUTER_COUNT: &str = "router_count";
    /// The stage of the call at which the deadline passed.
    pub const STAGE: &str = "stage";
}

/// Names of metadata of calls and of their responses.
pub mod header {
    /// The correlation id, in requests and in responses.
    pub const REQUEST_ID: &str = "x-request-id";
    /// GitLab's correlation id. A service reads it from requests without a [`REQUEST_ID`].
    pub const CORRELATION_ID: &str = "x-gitlab-correlation-id";
    /// The revision that a write created, or the revision of the configuration that selected the model.
    pub const REVISION: &str = "x-switchboard-revision";
    /// The incarnation of the store that a write changed.
    pub const INCARNATION: &str = "x-switchboard-incarnation";
    /// The model that answers the call.
    pub const MODEL: &str = "x-switchboard-model";
    /// Why the router selected that model.
    pub const REASON: &str = "x-switchboard-reason";
}

macro_rules! reasons {
    ($($(#[$doc:meta])* $variant:ident = $text:literal, $code:ident;)*) => {
        /// The reason for a failed call: `ErrorInfo.reason`.
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

            /// The gRPC code of a failure with this reason.
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
    /// Fields of the request are invalid, and they do not all share one [`FieldReason`] that is also a [`Reason`].
    ValidationFailed = "VALIDATION_FAILED", InvalidArgument;
    /// A field names a family that is not in the catalogue.
    FamilyUnknown = "FAMILY_UNKNOWN", InvalidArgument;
    /// A model's family cannot serve a feature.
    FamilyNotCompatible = "FAMILY_NOT_COMPATIBLE", InvalidArgument;
    /// A family or a feature is in beta, and beta is not enabled.
    BetaNotEnabled = "BETA_NOT_ENABLED", FailedPrecondition;
    /// The credential id is not the model's current one.
    CredentialSuperseded = "CREDENTIAL_SUPERSEDED", FailedPrecondition;
    /// The commit failed, and the registry could not find out whether the write was stored.
    WriteOutcomeUnknown = "WRITE_OUTCOME_UNKNOWN", Unavailable;
    /// The model that the call names does not exist.
    ModelNotFound = "MODEL_NOT_FOUND", NotFound;
    /// The feature that the call names does not exist.
    FeatureNotFound = "FEATURE_NOT_FOUND", NotFound;
    /// Another model already has the id or the display name.
    ModelNameTaken = "MODEL_NAME_TAKEN", AlreadyExists;
    /// An earlier, different write already used this request id.
    IdempotencyKeyReused = "IDEMPOTENCY_KEY_REUSED", AlreadyExists;
    /// The model cannot be deleted because features name it.
    ModelInUse = "MODEL_IN_USE", FailedPrecondition;
    /// The resource, or the configuration, has changed since the caller read it.
    RevisionConflict = "REVISION_CONFLICT", Aborted;
    /// The registry's disk is full.
    StorageFull = "STORAGE_FULL", ResourceExhausted;
    /// Another process holds a lock on the database.
    StorageBusy = "STORAGE_BUSY", Unavailable;
    /// The database is damaged.
    StorageCorrupt = "STORAGE_CORRUPT", DataLoss;
    /// The database is read-only.
    StorageReadOnly = "STORAGE_READ_ONLY", FailedPrecondition;
    /// The changes since the cursor, or since the revision to restore, are no longer stored.
    RevisionCompacted = "REVISION_COMPACTED", OutOfRange;
    /// The cursor or the call names a revision that does not exist yet.
    RevisionInFuture = "REVISION_IN_FUTURE", OutOfRange;
    /// The cursor or the revision belongs to another store, incarnation or history.
    StoreIncarnationChanged = "STORE_INCARNATION_CHANGED", FailedPrecondition;
    /// The cursor cannot be decoded, belongs to another view, or has the wrong state digest.
    CursorInvalid = "CURSOR_INVALID", InvalidArgument;
    /// No router is connected, or fewer routers than the call requires.
    NoRouterConnected = "NO_ROUTER_CONNECTED", FailedPrecondition;
    /// Some router did not apply the revision before the deadline.
    RevisionNotApplied = "REVISION_NOT_APPLIED", DeadlineExceeded;
    /// A router cannot use a resource of the revision.
    RevisionRefused = "REVISION_REFUSED", FailedPrecondition;
    /// A message on the change stream is out of order or contradicts earlier messages.
    StreamProtocolViolation = "STREAM_PROTOCOL_VIOLATION", InvalidArgument;
    /// The client of the change stream reads too slowly.
    WatchTooSlow = "WATCH_TOO_SLOW", ResourceExhausted;
    /// The number of change streams, of waits for a revision, or of checks on one router has reached its limit.
    WatchLimitReached = "WATCH_LIMIT_REACHED", ResourceExhausted;
    /// The router has no configuration yet.
    ConfigNotLoaded = "CONFIG_NOT_LOADED", Unavailable;
    /// The router does not have a usable version of the model yet.
    ModelNotReady = "MODEL_NOT_READY", Unavailable;
    /// All of the model's places are in use, and none became free in time.
    ModelOverloaded = "MODEL_OVERLOADED", Unavailable;
    /// The feature has reached its limit of concurrent calls.
    QuotaExceeded = "QUOTA_EXCEEDED", ResourceExhausted;
    /// Self-hosted inference is switched off.
    InferencePaused = "INFERENCE_PAUSED", FailedPrecondition;
    /// The call asks for a feature that does not exist.
    FeatureUnknown = "FEATURE_UNKNOWN", NotFound;
    /// The feature is switched off.
    FeatureDisabled = "FEATURE_DISABLED", FailedPrecondition;
    /// No provider is chosen for the feature.
    FeatureUnassigned = "FEATURE_UNASSIGNED", FailedPrecondition;
    /// GitLab's own cloud provides the feature.
    FeatureVendored = "FEATURE_VENDORED", FailedPrecondition;
    /// The model is disabled.
    ModelDisabled = "MODEL_DISABLED", FailedPrecondition;
    /// The model's API token was removed, and no new one was set.
    ModelCredentialMissing = "MODEL_CREDENTIAL_MISSING", FailedPrecondition;
    /// The selected model does not support this kind of input.
    InputNotSupported = "INPUT_NOT_SUPPORTED", FailedPrecondition;
    /// The time left until the deadline is too short for an attempt.
    DeadlineBudgetTooSmall = "DEADLINE_BUDGET_TOO_SMALL", DeadlineExceeded;
    /// The deadline passed before the call was complete.
    DeadlineExceeded = "DEADLINE_EXCEEDED", DeadlineExceeded;
    /// The caller cancelled the call or disconnected.
    CallerCancelled = "CALLER_CANCELLED", Cancelled;
    /// The caller reads the response too slowly.
    ClientTooSlow = "CLIENT_TOO_SLOW", ResourceExhausted;
    /// The service is shutting down.
    ServerDraining = "SERVER_DRAINING", Unavailable;
    /// The request message is larger than the limit.
    MessageTooLarge = "MESSAGE_TOO_LARGE", ResourceExhausted;
    /// The router could not connect to the model server.
    UpstreamConnectFailed = "UPSTREAM_CONNECT_FAILED", Unavailable;
    /// The model server's name could not be resolved.
    UpstreamDnsFailed = "UPSTREAM_DNS_FAILED", Unavailable;
    /// The TLS handshake with the model server failed.
    UpstreamTlsHandshakeFailed = "UPSTREAM_TLS_HANDSHAKE_FAILED", Unavailable;
    /// The model server's certificate is not trusted.
    UpstreamTlsUntrusted = "UPSTREAM_TLS_UNTRUSTED", FailedPrecondition;
    /// The model server did not send its first token in time.
    UpstreamFirstByteTimeout = "UPSTREAM_FIRST_BYTE_TIMEOUT", Unavailable;
    /// The model server stopped sending in the middle of its answer.
    UpstreamIdleTimeout = "UPSTREAM_IDLE_TIMEOUT", Unavailable;
    /// The model server's answer ended before it was complete.
    UpstreamStreamTruncated = "UPSTREAM_STREAM_TRUNCATED", Unavailable;
    /// The model server reported an error of its own.
    UpstreamServerError = "UPSTREAM_SERVER_ERROR", Unavailable;
    /// The model server limits the rate of requests or is overloaded.
    UpstreamRateLimited = "UPSTREAM_RATE_LIMITED", ResourceExhausted;
    /// The model server does not accept the model's API token.
    UpstreamCredentialRejected = "UPSTREAM_CREDENTIAL_REJECTED", FailedPrecondition;
    /// The model server does not know the model or the path.
    UpstreamModelNotFound = "UPSTREAM_MODEL_NOT_FOUND", FailedPrecondition;
    /// The model server does not accept the request.
    UpstreamRejectedRequest = "UPSTREAM_REJECTED_REQUEST", InvalidArgument;
    /// The input does not fit the model's context.
    ContextLengthExceeded = "CONTEXT_LENGTH_EXCEEDED", InvalidArgument;
    /// The model server responded with a redirect; the router does not follow redirects.
    UpstreamRedirectRefused = "UPSTREAM_REDIRECT_REFUSED", FailedPrecondition;
    /// The response has a content type that model servers do not send.
    UpstreamUnexpectedContentType = "UPSTREAM_UNEXPECTED_CONTENT_TYPE", FailedPrecondition;
    /// The model server's response is malformed.
    UpstreamProtocolError = "UPSTREAM_PROTOCOL_ERROR", Internal;
    /// The model server's response is not valid UTF-8.
    UpstreamInvalidUtf8 = "UPSTREAM_INVALID_UTF8", Internal;
    /// The model server's response is larger than the limit.
    UpstreamResponseTooLarge = "UPSTREAM_RESPONSE_TOO_LARGE", Internal;
    /// An internal error in Switchboard.
    InternalError = "INTERNAL_ERROR", Internal;
    /// The service does not have the called method.
    MethodUnknown = "METHOD_UNKNOWN", Unimplemented;
    /// The request is compressed with an unsupported encoding.
    EncodingNotSupported = "ENCODING_NOT_SUPPORTED", Unimplemented;
}

macro_rules! field_reasons {
    ($($(#[$doc:meta])* $variant:ident = $text:literal $(, $shared:ident)?;)*) => {
        /// The reason why a field is invalid: `reason` of a violation in `BadRequest.field_violations`.
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

            /// Returns the reason of the failed call if all its violations have this field reason: the [`Reason`] of
            /// the same name if there is one, otherwise [`Reason::ValidationFailed`].
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
    /// An update does not set any field.
    UpdateEmpty = "UPDATE_EMPTY";
    /// A number, a length or a count is outside its range.
    ValueOutOfRange = "VALUE_OUT_OF_RANGE";
    /// A text does not have the required syntax.
    ValueMalformed = "VALUE_MALFORMED";
    /// An enum value is unknown or unspecified.
    ValueUnknown = "VALUE_UNKNOWN";
    /// A list contains the same entry twice.
    ValueRepeated = "VALUE_REPEATED";
    /// A name is too long.
    NameTooLong = "NAME_TOO_LONG";
    /// An endpoint is not a valid URL.
    EndpointMalformed = "ENDPOINT_MALFORMED";
    /// An endpoint's scheme is neither http nor https.
    EndpointSchemeUnsupported = "ENDPOINT_SCHEME_UNSUPPORTED";
    /// An endpoint contains a user name or a password.
    EndpointHasUserinfo = "ENDPOINT_HAS_USERINFO";
    /// An endpoint contains a query.
    EndpointHasQuery = "ENDPOINT_HAS_QUERY";
    /// An endpoint contains a fragment.
    EndpointHasFragment = "ENDPOINT_HAS_FRAGMENT";
    /// `endpoint` is set together with `endpoints`, or for a stored model that has more than one endpoint.
    EndpointAmbiguous = "ENDPOINT_AMBIGUOUS";
    /// The prefix of the identifier names a platform other than the model's.
    IdentifierPlatformMismatch = "IDENTIFIER_PLATFORM_MISMATCH";
    /// This version does not support the platform.
    PlatformNotSupported = "PLATFORM_NOT_SUPPORTED";
    /// The model's platform does not have the option, or cannot serve models of the family.
    PlatformMismatch = "PLATFORM_MISMATCH";
    /// The model's family or platform does not support the infill mode.
    InfillModeNotSupported = "INFILL_MODE_NOT_SUPPORTED";
    /// The PEM text contains an unreadable certificate, something other than certificates, or no certificate.
    CertificateMalformed = "CERTIFICATE_MALFORMED";
    /// An API token contains characters other than visible ASCII.
    CredentialNotAscii = "CREDENTIAL_NOT_ASCII";
    /// `provider` contradicts `model`, `fallback_models` or `rules`.
    ProviderMismatch = "PROVIDER_MISMATCH";
    /// Features would reserve more places than their model has, or one feature more places than its own limit.
    ReservationTooLarge = "RESERVATION_TOO_LARGE";
    /// The page token was not issued for this list request.
    PageTokenInvalid = "PAGE_TOKEN_INVALID";
    /// The family is not in the catalogue.
    FamilyUnknown = "FAMILY_UNKNOWN", FamilyUnknown;
    /// The family cannot serve the feature.
    FamilyNotCompatible = "FAMILY_NOT_COMPATIBLE", FamilyNotCompatible;
    /// The field names a model that does not exist.
    ModelNotFound = "MODEL_NOT_FOUND", ModelNotFound;
    /// The field names a feature that does not exist.
    FeatureNotFound = "FEATURE_NOT_FOUND", FeatureNotFound;
    /// The cursor cannot be decoded, belongs to another view, or has the wrong state digest.
    CursorInvalid = "CURSOR_INVALID", CursorInvalid;
    /// The model server does not accept the input in this field.
    UpstreamRejectedRequest = "UPSTREAM_REJECTED_REQUEST", UpstreamRejectedRequest;
    /// The input in this field does not fit the model's context.
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
