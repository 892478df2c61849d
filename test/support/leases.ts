/** What tests of leases want to know of them. */
import { Effect, Exit } from "effect"
import { Lease } from "effect-etcd-lock"

const losses = new WeakMap<Lease.Lease, Lease.LeaseExpired["reason"]>()

/** Awaits the loss from the beginning on, since asking for it later would bring it about. */
export const observed = <E, R>(make: Effect.Effect<Lease.Lease, E, R>): Effect.Effect<Lease.Lease, E, R> =>
  Effect.tap(make, (lease) =>
    Effect.forkDetach(
      Effect.catch(lease.awaitLoss, ({ reason }) => Effect.sync(() => losses.set(lease, reason))),
      { startImmediately: true }
    ))

/** The reason of the loss, if it was told by itself. */
export const lossOf = (lease: Lease.Lease) => Effect.map(Effect.yieldNow, () => losses.get(lease))

/** Why an effect ended, cause by cause. */
export const reasons = (exit: Exit.Exit<unknown, unknown>) =>
  Exit.isSuccess(exit) ? ["Success"] : exit.cause.reasons.map((reason) =>
    reason._tag === "Fail"
      ? reason.error instanceof Lease.LeaseExpired ? `LeaseExpired ${reason.error.reason}` : String(reason.error)
      : reason._tag === "Die"
      ? `defect ${reason.defect}`
      : "Interrupt"
  )
