/** `@drey/client`: Drey in a browser and in Node. */
export { DreyClient, newRequestId, type ClientOptions } from "./client";
export { datumOf, datumText, elementsOf, extractOf, numberOf, numberText, pointsOf, ARRAY, EXTRACT, Kind, NO_DATUM, type Datum, type Display, type Extract } from "./datum";
export { planDigest } from "./digest";
export { fieldOf, passes, reasonOf } from "./errors";
export { appendPart, joinRows } from "./join";
export { DriftState } from "./drift_state";
export { DriftWatch, StreamWatch, Watch, type Connection, type DriftSpecInit, type StreamState, type WatchOptions, type WatchSpecInit } from "./watch";
export { WatchState, READBACK, SETPOINT, type Role } from "./watch_state";
