//! What a layer is, told by the signatures in its bytes.
