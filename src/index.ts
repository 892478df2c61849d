export * as Etcd from "./Etcd.ts"
export * as Lease from "./Lease.ts"
export * as Lock from "./Lock.ts"
export * as Session from "./Session.ts"
