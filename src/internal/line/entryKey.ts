/** What etcd has of an entry. */
import type * as Etcd from "../../Etcd.ts"
import { toText } from "../etcd/bytes.ts"

/** All that an answer without values shows: the lease in it may be missing. */
export type EntryKey = Pick<Etcd.KeyValue, "key" | "createRevision">

/** What only an answer with values shows. */
export type EntryKeyValue = EntryKey & Pick<Etcd.KeyValue, "value" | "lease">

/** A key as text, to be shown. */
export const keyOf = (kv: Pick<Etcd.KeyValue, "key">): string => Buffer.from(kv.key).toString()

/** A key as an index. Keys are bytes: two that are no UTF-8 may be shown as the same text. */
export const idOf = ({ key }: Pick<Etcd.KeyValue, "key">): string => toText(key)
