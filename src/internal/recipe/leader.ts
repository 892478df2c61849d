/**
 * Which client leads, as all clients can read it: the one with the first entry in the
 * line.
 */
import * as Arr from "effect/Array"
import * as Effect from "effect/Effect"
import * as Option from "effect/Option"
import * as Stream from "effect/Stream"
import type { Candidate, Leader } from "../../Election.ts"
import type * as Etcd from "../../Etcd.ts"
import { idOf, keyOf } from "../line/entryKey.ts"
import { first } from "../line/requests.ts"
import { changes } from "./changes.ts"
import { type Place, readLine } from "./inspection.ts"

type Service = Etcd.Etcd["Service"]

/** Reads the key of the leader. Behind a key that is no entry, no client can lead. */
const head = (etcd: Service, { layout, prefix }: Place) =>
  Effect.map(etcd.range(first(layout.range(prefix))), (read) => ({
    ...read,
    leading: Option.filter(Arr.head(read.kvs), isCandidate({ layout, prefix }))
  }))

const isCandidate = ({ layout, prefix }: Place) => (kv: Etcd.KeyValue): boolean =>
  kv.lease !== 0n && layout.isEntry(prefix, kv)

const show = (kv: Etcd.KeyValue): Candidate => ({
  key: keyOf(kv),
  value: Buffer.from(kv.value).toString(),
  leaseId: kv.lease,
  createRevision: kv.createRevision,
  revision: kv.modRevision
})

export const leader = (etcd: Service, place: Place) =>
  Effect.map(head(etcd, place), ({ leading }) => Option.map(leading, show))

export const candidates = (etcd: Service, place: Place) =>
  Effect.map(
    readLine(etcd, place.layout.range(place.prefix)),
    ({ kvs }) => kvs.filter(isCandidate(place)).map(show)
  )

export const observe = (
  etcd: Service,
  name: string,
  place: Place
): Stream.Stream<Option.Option<Leader>, Etcd.EtcdError> =>
  Stream.suspend(() => {
    // While a client leads, the others only come and go behind it. While a read is under way, any event may matter.
    let leads: string | undefined
    return changes(etcd, {
      subject: `The leader of election '${name}'`,
      range: place.layout.range(place.prefix),
      look: Effect.suspend(() => {
        leads = undefined
        return Effect.map(head(etcd, place), ({ leading, ...state }) => {
          leads = Option.getOrUndefined(Option.map(leading, idOf))
          return { ...state, shown: Option.map(leading, show) }
        })
      }),
      matters: ({ kv }) => leads === undefined || leads === idOf(kv)
    })
  }).pipe(Stream.changesWith(Option.makeEquivalence(isSame)))

const isSame = (a: Leader, b: Leader): boolean => a.createRevision === b.createRevision && a.revision === b.revision
