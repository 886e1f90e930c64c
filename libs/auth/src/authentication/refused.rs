//! Why a token was refused.

/// Why a call's credentials were refused. The text names the rule and repeats nothing of the token, so
/// that it can be shown to the caller and logged.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, thiserror::Error)]
#[non_exhaustive]
pub enum Refused {
    /// No `authorization` header.
    #[error("a bearer token is required: send the header `authorization: Bearer <token>`")]
    HeaderMissing,
    /// Several `authorization` headers.
    #[error("there is more than one authorization header; send one")]
    HeaderRepeated,
    /// Another scheme than Bearer.
    #[error("the authorization scheme is not Bearer")]
    SchemeUnsupported,
    /// `Bearer` followed by something that is no token.
    #[error(
        "the authorization header holds no token after `Bearer`, or characters that no token has"
    )]
    HeaderMalformed,
    /// Over [`TOKEN_BYTES`](super::TOKEN_BYTES).
    #[error("the token is longer than 16384 bytes")]
    TooLong,
    /// Not three parts.
    #[error("the token is not a signed JWT: it does not have three parts")]
    NotSigned,
    /// Five parts, `enc` or `zip`.
    #[error("the token is encrypted; only signed tokens are accepted")]
    Encrypted,
    /// The first part is not base64url.
    #[error("the token's header is not base64url without padding")]
    HeaderEncoding,
    /// The first part is not an object, or an ambiguous one.
    #[error("the token's header is not a JSON object with each member once")]
    HeaderJson,
    /// No `alg`, or no text.
    #[error("the token's header names no algorithm")]
    AlgorithmMissing,
    /// `none`.
    #[error("the token is not signed (its algorithm is `none`)")]
    AlgorithmNone,
    /// `HS256` and the like.
    #[error("the token is signed with a shared secret; only public-key signatures are accepted")]
    AlgorithmSymmetric,
    /// Any other.
    #[error(
        "the token's algorithm is not one of RS256, RS384, RS512, PS256, PS384, PS512, ES256, ES384, EdDSA"
    )]
    AlgorithmUnsupported,
    /// `crit`.
    #[error("the token's header has critical extensions, and none is supported")]
    Critical,
    /// `typ`.
    #[error("the token's type is neither `JWT` nor `at+jwt`")]
    TypeUnsupported,
    /// `cty`.
    #[error("the token holds another token")]
    Nested,
    /// `kid` that is no text, empty or long.
    #[error("the token's key id is not a text of 1 to 256 bytes")]
    KeyIdMalformed,
    /// No key of this name, or for this algorithm.
    #[error("the token is signed with a key that the issuer does not publish")]
    KeyUnknown,
    /// No `kid`, and several keys that might be meant.
    #[error("the token names no key, and the issuer publishes several for its algorithm")]
    KeyAmbiguous,
    /// The key is for another algorithm.
    #[error("the token's algorithm is not that of its key")]
    AlgorithmNotOfKey,
    /// The third part is not base64url.
    #[error("the token's signature is not base64url without padding")]
    SignatureEncoding,
    /// The signature does not verify.
    #[error("the token's signature is not valid")]
    SignatureInvalid,
    /// The second part is not base64url.
    #[error("the token's claims are not base64url without padding")]
    ClaimsEncoding,
    /// The second part is not an object, or one that values cannot hold.
    #[error(
        "the token's claims are not a JSON object with each member once, of numbers that a double holds, nested at most 24 deep"
    )]
    ClaimsJson,
    /// The claims kept with events are over 16 KiB.
    #[error("the token's claims are larger than 16384 bytes as canonical JSON")]
    ClaimsTooLarge,
    /// No `exp`.
    #[error("the token does not say when it expires (`exp`)")]
    ExpiryMissing,
    /// `exp` that is no number.
    #[error("the token's expiry (`exp`) is not a number")]
    ExpiryMalformed,
    /// `exp` has passed.
    #[error("the token has expired")]
    Expired,
    /// `nbf` that is no number.
    #[error("the time before which the token is not valid (`nbf`) is not a number")]
    NotBeforeMalformed,
    /// `nbf` is to come.
    #[error("the token is not valid yet (`nbf`)")]
    NotYetValid,
    /// `iat` that is no number.
    #[error("the time at which the token was issued (`iat`) is not a number")]
    IssuedAtMalformed,
    /// `iat` is to come.
    #[error("the token was issued in the future (`iat`)")]
    IssuedInFuture,
    /// No `iss`, and one is required.
    #[error("the token names no issuer (`iss`)")]
    IssuerMissing,
    /// `iss` that is no text, or a long one.
    #[error("the token's issuer (`iss`) is not a text of 1 to 512 bytes")]
    IssuerMalformed,
    /// Another issuer.
    #[error("the token is of another issuer (`iss`)")]
    IssuerWrong,
    /// No `aud`, and one is required.
    #[error("the token names no audience (`aud`)")]
    AudienceMissing,
    /// `aud` that is neither a text nor a list of texts.
    #[error("the token's audience (`aud`) is neither a text nor a list of texts")]
    AudienceMalformed,
    /// Another audience.
    #[error("the token is for another audience (`aud`)")]
    AudienceWrong,
    /// `sub` that is no text, or a long one.
    #[error("the token's subject (`sub`) is not a text of 1 to 512 bytes")]
    SubjectMalformed,
    /// Nothing to verify with, now: answered as UNAVAILABLE and not as UNAUTHENTICATED.
    #[error("the keys that tokens are verified with cannot be had at the moment; try again")]
    KeysUnavailable,
}

impl Refused {
    /// As metrics and the log name it.
    pub fn name(self) -> &'static str {
        match self {
            Self::HeaderMissing => "header_missing",
            Self::HeaderRepeated => "header_repeated",
            Self::SchemeUnsupported => "scheme_unsupported",
            Self::HeaderMalformed => "header_malformed",
            Self::TooLong => "too_long",
            Self::NotSigned => "not_signed",
            Self::Encrypted => "encrypted",
            Self::HeaderEncoding => "header_encoding",
            Self::HeaderJson => "header_json",
            Self::AlgorithmMissing => "algorithm_missing",
            Self::AlgorithmNone => "algorithm_none",
            Self::AlgorithmSymmetric => "algorithm_symmetric",
            Self::AlgorithmUnsupported => "algorithm_unsupported",
            Self::Critical => "critical",
            Self::TypeUnsupported => "type_unsupported",
            Self::Nested => "nested",
            Self::KeyIdMalformed => "key_id_malformed",
            Self::KeyUnknown => "key_unknown",
            Self::KeyAmbiguous => "key_ambiguous",
            Self::AlgorithmNotOfKey => "algorithm_not_of_key",
            Self::SignatureEncoding => "signature_encoding",
            Self::SignatureInvalid => "signature_invalid",
            Self::ClaimsEncoding => "claims_encoding",
            Self::ClaimsJson => "claims_json",
            Self::ClaimsTooLarge => "claims_too_large",
            Self::ExpiryMissing => "expiry_missing",
            Self::ExpiryMalformed => "expiry_malformed",
            Self::Expired => "expired",
            Self::NotBeforeMalformed => "not_before_malformed",
            Self::NotYetValid => "not_yet_valid",
            Self::IssuedAtMalformed => "issued_at_malformed",
            Self::IssuedInFuture => "issued_in_future",
            Self::IssuerMissing => "issuer_missing",
            Self::IssuerMalformed => "issuer_malformed",
            Self::IssuerWrong => "issuer_wrong",
            Self::AudienceMissing => "audience_missing",
            Self::AudienceMalformed => "audience_malformed",
            Self::AudienceWrong => "audience_wrong",
            Self::SubjectMalformed => "subject_malformed",
            Self::KeysUnavailable => "keys_unavailable",
        }
    }

    /// Whether the same token may be accepted later, unchanged: UNAVAILABLE, not UNAUTHENTICATED.
    pub fn is_temporary(self) -> bool {
        self == Self::KeysUnavailable
    }
}
