//! The gRPC services for health (`grpc.health.v1`) and reflection.

pub mod ask;

use std::sync::Arc;

use tokio::sync::watch;
use tonic::service::Routes;
use tonic_health::{ServingStatus, server::HealthReporter};
use tonic_reflection::server::{Builder, Error as ReflectionError};

use crate::{bounded, pb};

/// The maximum size of a request for health or reflection, in bytes.
const REQUEST_BYTES: usize = 16 * 1024;

/// A part of the process that may fail while the services continue. It has its own health status.
#[derive(Debug)]
pub struct HealthPart {
    /// The service name under which health reports the part. It must not be the name of a gRPC service.
    pub name: &'static str,
    /// Whether the part works.
    pub serves: watch::Receiver<bool>,
}

/// Sets the status of the services in `grpc.health.v1`.
#[derive(Debug, Clone)]
pub struct ServiceHealth {
    reporter: HealthReporter,
    services: Arc<[&'static str]>,
}

impl ServiceHealth {
    /// Adds the health service to `routes`. `services` are the full names of the services; the empty name, which stands
    /// for all of them, is added. All begin as not serving.
    pub async fn add_to(routes: Routes, services: &[&'static str]) -> (Self, Routes) {
        let (reporter, server) = tonic_health::server::health_reporter();
        let health = Self {
            reporter,
            services: services.into(),
        };
        health.set_serving(false).await;
        (health, routes.add_service(bounded!(server, REQUEST_BYTES)))
    }

    /// Sets the status of all services.
    pub async fn set_serving(&self, is_serving: bool) {
        for service in self.services.iter().chain(&[""]) {
            self.reporter.set_service_status(service, status(is_serving)).await;
        }
    }

    /// Updates the health status of `part` until its sender is dropped, then sets it to not serving.
    pub async fn follow(self, mut part: HealthPart) {
        loop {
            let status = status(*part.serves.borrow_and_update());
            self.reporter.set_service_status(part.name, status).await;
            if part.serves.changed().await.is_err() {
                break;
            }
        }
        self.reporter
            .set_service_status(part.name, ServingStatus::NotServing)
            .await;
    }
}

const fn status(is_serving: bool) -> ServingStatus {
    if is_serving {
        ServingStatus::Serving
    } else {
        ServingStatus::NotServing
    }
}

/// Adds gRPC reflection, v1 and v1alpha, for `services` and health. It includes the comments of the contract and the
/// types of error details.
///
/// # Errors
///
/// If the compiled-in descriptors are damaged, which a test rules out.
pub fn add_reflection(routes: Routes, services: &[&'static str]) -> Result<Routes, ReflectionError> {
    let builder = || {
        let builder = Builder::configure()
            .register_encoded_file_descriptor_set(pb::FILE_DESCRIPTOR_SET)
            .register_encoded_file_descriptor_set(tonic_health::pb::FILE_DESCRIPTOR_SET)
            .register_encoded_file_descriptor_set(tonic_types::pb::FILE_DESCRIPTOR_SET)
            .with_service_name("grpc.health.v1.Health");
        services
            .iter()
            .fold(builder, |builder, service| builder.with_service_name(*service))
    };
    let v1 = builder()
        .with_service_name("grpc.reflection.v1.ServerReflection")
        .build_v1()?;
    let v1alpha = builder()
        .with_service_name("grpc.reflection.v1alpha.ServerReflection")
        .build_v1alpha()?;
    Ok(routes
        .add_service(bounded!(v1, REQUEST_BYTES))
        .add_service(bounded!(v1alpha, REQUEST_BYTES)))
}
