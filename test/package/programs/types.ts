/** Compiles only if the public modules have their types, and the internal ones are refused. */
import type { Effect, Layer } from "effect"
import { type Etcd, Lock, Session } from "effect-etcd-lock"
import * as EtcdModule from "effect-etcd-lock/Etcd"
import * as EtcdRunnerStorage from "effect-etcd-lock/EtcdRunnerStorage"
import * as LockModule from "effect-etcd-lock/Lock"
import type { RunnerStorage } from "effect/cluster/RunnerStorage"
import type { ShardingConfig } from "effect/cluster/ShardingConfig"

type IsAny<A> = 0 extends 1 & A ? true : false

export const isAny: IsAny<typeof Lock.withLock> | IsAny<typeof LockModule.withLock> = false

export const withLock: typeof Lock.withLock = LockModule.withLock
export const memory: Layer.Layer<Etcd.Etcd | Etcd.Faults> = EtcdModule.layerMemory()
export const session: Layer.Layer<Session.Session, unknown, Etcd.Etcd> = Session.layer()
export const storage: Layer.Layer<RunnerStorage, never, Etcd.Etcd | ShardingConfig> = EtcdRunnerStorage.layer()
export const acquired: Effect.Effect<{ readonly fencingToken: bigint }, unknown, unknown> = Lock.acquire("job")

// @ts-expect-error
export const internal = () => import("effect-etcd-lock/internal/options")
