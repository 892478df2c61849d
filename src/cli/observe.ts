/** `etcd-lock observe`: who leads. */
import { Election } from "effect-etcd-lock"
import { Argument, Command } from "effect/cli"
import * as Console from "effect/Console"
import * as Effect from "effect/Effect"
import * as Option from "effect/Option"
import * as Stream from "effect/Stream"
import { json, printable } from "../internal/printable.ts"
import { connection } from "./connection.ts"
import { root } from "./root.ts"
import { untilSignal } from "./signals.ts"
import { spoken } from "./words.ts"

export const observe = Command.make("observe", {
  name: Argument.String("name").pipe(Argument.withDescription("The election's name."))
}, ({ name }) =>
  Effect.gen(function*() {
    const show = (yield* root).json ? toJson : toText
    yield* Stream.runForEach(Election.observe(name), (leader) => Console.log(show(name, leader)))
  }).pipe(untilSignal, Effect.provide(connection), spoken)).pipe(
    Command.withShortDescription("Print who leads, as it changes."),
    Command.withDescription("Prints who leads, now and after every change, also of what the leader proclaims.")
  )

const toText = (name: string, leader: Option.Option<Election.Leader>): string =>
  Option.match(leader, {
    onNone: () => `No candidate leads '${name}'.`,
    onSome: ({ value }) => printable(value)
  })

const toJson = (election: string, leader: Option.Option<Election.Leader>): string =>
  json({
    election,
    leader: Option.match(leader, {
      onNone: () => null,
      onSome: ({ createRevision, key, leaseId, revision, value }) => ({
        value,
        key,
        lease: leaseId.toString(16),
        createRevision: Number(createRevision),
        revision: Number(revision)
      })
    })
  })
