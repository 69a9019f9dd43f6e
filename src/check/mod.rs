//! SOUND? One file a checker: how it is called, and what its exit status and words mean.

pub mod checker;
mod ext;
mod fat;
pub mod image;
pub mod layer;
pub mod outcome;
mod patterns;
pub mod run;
mod xfs;
