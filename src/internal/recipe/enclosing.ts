/**
 * The bodies that a fiber runs in, from the innermost one outwards: a body cannot wait
 * for a lock that it runs under.
 */
import * as Context from "effect/Context"
import { Current } from "../../Current.ts"
import type { Ownership } from "./ownership.ts"

interface Body {
  readonly ownership: Ownership
  readonly outer: Body | undefined
}

class Enclosing extends Context.Service<Enclosing, Body>()("effect-etcd-lock/internal/Enclosing") {}

/** The context of a body that runs under `ownership`. */
export const enter = <R>(context: Context.Context<R>, ownership: Ownership): Context.Context<R | Current> =>
  context.pipe(
    Context.add(Enclosing, { ownership, outer: innermost(context) }),
    Context.add(Current, ownership)
  ) as Context.Context<R | Current>

/** Whether a body around it still runs under an ownership that `matches`. */
export const isInside = (context: Context.Context<never>, matches: (ownership: Ownership) => boolean): boolean => {
  let body = innermost(context)
  while (body !== undefined && !matches(body.ownership)) body = body.outer
  return body !== undefined
}

// A detached fiber that is to wait for the lock on its own leaves the bodies by omitting `Current`.
const innermost = (context: Context.Context<never>): Body | undefined =>
  Context.getOrUndefined(context, Current) === undefined ? undefined : Context.getOrUndefined(context, Enclosing)
