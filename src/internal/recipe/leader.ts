/**
 * Which client leads, as all clients can read it: the one with the first entry in the
 * line.
 */
import * as Effect from "effect/Effect"
import * as Option from "effect/Option"
import * as Stream from "effect/Stream"
import type { Leader } from "../../Election.ts"
import type * as Etcd from "../../Etcd.ts"
import { idOf, keyOf } from "../line/entryKey.ts"
import { first } from "../line/requests.ts"
import { changes, type Place } from "./inspection.ts"

type Service = Etcd.Etcd["Service"]

/** Reads the key of the leader. Behind a key that is no entry, no client can lead. */
const head = (etcd: Service, { layout, prefix }: Place) =>
  Effect.map(
    etcd.range(first(layout.range(prefix))),
    ({ kvs: [kv] }) => Option.filter(Option.fromNullishOr(kv), (kv) => kv.lease !== 0n && layout.isEntry(prefix, kv))
  )

const show = (kv: Etcd.KeyValue): Leader => ({
  key: keyOf(kv),
  value: Buffer.from(kv.value).toString(),
  leaseId: kv.lease,
  createRevision: kv.createRevision,
  revision: kv.modRevision
})

export const leader = (etcd: Service, place: Place) => Effect.map(head(etcd, place), Option.map(show))

export const observe = (
  etcd: Service,
  place: Place
): Stream.Stream<Option.Option<Leader>, Etcd.EtcdError> =>
  Stream.suspend(() => {
    // While a client leads, the others only come and go behind it. While a read is under way, any event may matter.
    let leading: string | undefined
    const look = Effect.suspend(() => {
      leading = undefined
      return Effect.map(head(etcd, place), (found) => {
        leading = Option.getOrUndefined(Option.map(found, idOf))
        return Option.map(found, show)
      })
    })
    return changes(
      etcd,
      place.layout.range(place.prefix),
      look,
      ({ kv }) => leading === undefined || leading === idOf(kv)
    )
  }).pipe(Stream.changesWith(Option.makeEquivalence(isSame)))

const isSame = (a: Leader, b: Leader): boolean => a.createRevision === b.createRevision && a.revision === b.revision
