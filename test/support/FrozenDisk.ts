/** A file system that can be frozen: all that writes to it hangs until it thaws. It takes root and a loop device. */
import { Effect, type Scope } from "effect"
import { execFileSync } from "node:child_process"
import * as Fs from "node:fs"
import * as Path from "node:path"
import { afterwards } from "./internal/afterwards.ts"
import { roomiest } from "./internal/native.ts"

export interface FrozenDisk {
  readonly directory: string
  readonly freeze: Effect.Effect<void>
  readonly thaw: Effect.Effect<void>
}

const call = (command: string, ...args: ReadonlyArray<string>) => execFileSync(command, args, { stdio: "ignore" })

/** Whether this machine can make one. */
export const isAvailable = (): boolean => {
  if (process.platform !== "linux" || process.getuid?.() !== 0) return false
  const parts = make()
  parts?.remove()
  return parts !== undefined
}

const make = () => {
  const parent = Fs.mkdtempSync(Path.join(roomiest(), "frozen-disk-"))
  const [image, directory] = [Path.join(parent, "image"), Path.join(parent, "mounted")]
  const remove = () => Fs.rmSync(parent, { recursive: true, force: true })
  try {
    Fs.mkdirSync(directory)
    Fs.closeSync(Fs.openSync(image, "w"))
    // etcd keeps several logs of 64 MiB. What is not written takes no room.
    Fs.truncateSync(image, 2 ** 31)
    call("mkfs.ext4", "-q", image)
    call("mount", "-o", "loop", image, directory)
    const { callOff } = afterwards(`fsfreeze -u '${directory}'; umount -l '${directory}'; rm -rf '${parent}'`)
    return {
      directory,
      remove: () => {
        callOff()
        call("umount", "--lazy", directory)
        remove()
      }
    }
  } catch {
    remove()
    return undefined
  }
}

export const start: Effect.Effect<FrozenDisk, never, Scope.Scope> = Effect.gen(function*() {
  const { directory } = yield* Effect.acquireRelease(Effect.sync(() => make()!), ({ remove }) => Effect.sync(remove))
  let isFrozen = false
  const turn = (to: boolean) =>
    Effect.sync(() => {
      if (isFrozen === to) return
      call("fsfreeze", to ? "--freeze" : "--unfreeze", directory)
      isFrozen = to
    })
  return { directory, freeze: turn(true), thaw: turn(false) }
})
