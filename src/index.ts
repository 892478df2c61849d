export * as Etcd from "./Etcd.ts"
