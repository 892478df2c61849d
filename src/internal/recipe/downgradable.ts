/**
 * A write lock that can become a read lock: a writer's entry and a reader's, which join the line at one revision. Once the
 * writer's has left, readers behind it may enter, and writers still wait.
 */
import * as Effect from "effect/Effect"
import type { WriteHandle, WriteOptions } from "../../ReadWriteLock.ts"
import { downgradable } from "../line/discipline.ts"
import * as Check from "../options.ts"
import { Several, type Together } from "./several.ts"

export class Downgradable extends Several implements WriteHandle {
  get downgrade(): WriteHandle["downgrade"] {
    return Effect.suspend(() => {
      const [writing, reading] = this.locks
      return this.check.pipe(
        // A writer that was lost does not become a reader.
        Effect.andThen(Effect.tapError(writing!.giveBack, () => reading!.release)),
        Effect.andThen(Effect.sync(() => {
          reading!.begin()
          return reading!
        }))
      )
    })
  }
}

export const writer = (name: string, options: WriteOptions | undefined): Together<Downgradable> => ({
  module: "ReadWriteLock",
  parts: () => {
    Check.name("ReadWriteLock", name)
    Check.object("ReadWriteLock", "options", options, "{ downgradable: true }")
    return downgradable.map((claim) => ({ name, claim }))
  },
  hold: (etcd, locks) => {
    const [writing, reading] = locks
    writing!.begin()
    // It counts as held by its writer alone, which a loss of the reader ends as well.
    reading!.onLost(() => writing!.loseWith(reading!))
    return new Downgradable(etcd, locks)
  }
})
