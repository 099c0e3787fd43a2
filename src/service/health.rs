//! Health and reflection: what a platform asks before anything else.

pub mod ask;

use std::sync::Arc;

use tokio::sync::watch;
use tonic::service::Routes;
use tonic_health::{ServingStatus, server::HealthReporter};
use tonic_reflection::server::{Builder, Error as ReflectionError};

use crate::{bounded, pb};

/// More than any question of health or reflection needs.
const REQUEST_BYTES: usize = 16 * 1024;

/// Something that may fail while the services go on, told under a name of its own.
#[derive(Debug)]
pub struct HealthPart {
    /// Its name: no service's.
    pub name: &'static str,
    /// Whether it works.
    pub serves: watch::Receiver<bool>,
}

/// Tells by `grpc.health.v1` which services serve.
#[derive(Debug, Clone)]
pub struct ServiceHealth {
    reporter: HealthReporter,
    services: Arc<[&'static str]>,
}

impl ServiceHealth {
    /// Adds the health service to `routes`. Nothing serves yet. `services` are full names; the empty name stands for all.
    pub async fn add_to(routes: Routes, services: &[&'static str]) -> (Self, Routes) {
        let (reporter, server) = tonic_health::server::health_reporter();
        let health = Self {
            reporter,
            services: services.into(),
        };
        health.set_serving(false).await;
        (health, routes.add_service(bounded!(server, REQUEST_BYTES)))
    }

    /// Says whether all services serve.
    pub async fn set_serving(&self, is_serving: bool) {
        for service in self.services.iter().chain(&[""]) {
            self.reporter.set_service_status(service, status(is_serving)).await;
        }
    }

    /// Keeps what is told of a part true, until it is gone.
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

/// Adds reflection, v1 and v1alpha, with the comments of the contract and the error details.
///
/// # Errors
///
/// When the compiled-in descriptors are damaged, which a test rules out.
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
