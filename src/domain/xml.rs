//! Reading domain XML.
