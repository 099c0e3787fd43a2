//! What both benchmarks need to measure one server beside another: processes, gRPC clients and figures.
//!
//! What is measured, and how, stays in the benchmarks.

pub mod figures;
pub mod grpc;
pub mod machine;
pub mod process;
