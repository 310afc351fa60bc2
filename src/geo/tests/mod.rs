//! What several modules are tested with, and those tests that need files or many regions.

mod database;
mod locate;
// Integration tests have it, too, and cannot reach into the crate's tests.
#[path = "../../../tests/it/support/mmdb.rs"]
mod mmdb;
mod nearest;

use proptest::prelude::*;

use super::Coordinates;

/// Any point, the poles and both sides of the date line more often than they would come by chance.
pub(in crate::geo) fn anywhere() -> impl Strategy<Value = Coordinates> {
    let latitude = prop_oneof![8 => -90.0..=90.0, 1 => Just(-90.0), 1 => Just(90.0), 1 => Just(0.0)];
    let longitude = prop_oneof![8 => -180.0..=180.0, 1 => Just(-180.0), 1 => Just(180.0), 1 => Just(0.0)];
    (latitude, longitude).prop_map(|(latitude, longitude)| Coordinates::new(latitude, longitude).unwrap())
}
