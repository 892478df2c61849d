/** What a user gets: the project as it would be committed now, the archive of it, and a project that depends on either. */
import { Effect, type Scope } from "effect"
import { execFile } from "node:child_process"
import * as Fs from "node:fs"
import * as Os from "node:os"
import * as Path from "node:path"

const root = Path.resolve(import.meta.dirname, "../..")

const json = (...path: ReadonlyArray<string>) => JSON.parse(Fs.readFileSync(Path.join(...path), "utf8"))

/** A directory of its own, which is gone when the scope closes. */
export const temporary: Effect.Effect<string, never, Scope.Scope> = Effect.acquireRelease(
  // npm resolves links, and would not find itself below one.
  Effect.sync(() => Fs.realpathSync(Fs.mkdtempSync(Path.join(Os.tmpdir(), "package-")))),
  (directory) => Effect.sync(() => Fs.rmSync(directory, { recursive: true, force: true }))
)

export interface Output {
  readonly stdout: string
  readonly stderr: string
}

/** Runs a command with the Node that runs the tests, and dies with all that it printed unless it succeeds. */
export const run = (
  cwd: string,
  command: string,
  args: ReadonlyArray<string>,
  env: Readonly<Record<string, string>> = {}
): Effect.Effect<Output> =>
  Effect.callback((resume) => {
    const path = [Path.dirname(process.execPath), process.env.PATH].join(Path.delimiter)
    const options = { cwd, env: { ...process.env, PATH: path, ...env }, maxBuffer: 2 ** 26 }
    const child = execFile(command, args, options, (error, stdout, stderr) =>
      resume(
        error === null
          ? Effect.succeed({ stdout, stderr })
          : Effect.die(new Error(`${command} ${args.join(" ")}: ${error.message}\n${stdout}${stderr}`))
      ))
    return Effect.sync(() => void child.kill())
  })

/** Runs a module, and returns what it printed. */
export const runModule = (cwd: string, file: string, env?: Readonly<Record<string, string>>): Effect.Effect<string> =>
  Effect.map(run(cwd, process.execPath, [file], env), ({ stdout }) => stdout.trim())

/** The files of the project, in a repository of their own that has committed them. */
export const repository = Effect.gen(function*() {
  const directory = yield* temporary
  const { stdout } = yield* run(root, "git", ["ls-files", "-z", "--cached", "--others", "--exclude-standard"])
  for (const file of stdout.split("\0")) {
    const from = Path.join(root, file)
    // One that was deleted is still listed.
    if (Fs.lstatSync(from, { throwIfNoEntry: false })?.isFile() === true) Fs.cpSync(from, Path.join(directory, file))
  }
  const author = ["-c", "user.name=Test", "-c", "user.email=test@example.com"]
  yield* run(directory, "git", ["init", "--quiet"])
  yield* run(directory, "git", ["add", "--all"])
  yield* run(directory, "git", [...author, "commit", "--quiet", "--no-verify", "--message", "Add all files"])
  return directory
})

/** The path of the archive that `npm pack` makes. */
export const archive = Effect.gen(function*() {
  const directory = yield* repository
  Fs.symlinkSync(Path.join(root, "node_modules"), Path.join(directory, "node_modules"))
  yield* run(directory, "npm", ["pack", "--silent"])
  const { name, version } = json(directory, "package.json")
  return Path.join(directory, `${name}-${version}.tgz`)
})

/**
 * Installs the package in an empty project, and returns the project's directory and what npm printed.
 *
 * The project has a lock file with the versions of this one. So it is always the same that is installed, and npm has
 * all of it in its cache.
 */
export const install = Effect.fnUntraced(function*(specifier: string, resolved: string) {
  const directory = yield* temporary
  const own = json(root, "package.json")
  const { packages: { "": _, ...packages } } = json(root, "package-lock.json")
  for (const entry of Object.values<{ dev?: boolean }>(packages)) delete entry.dev
  const { bin, dependencies, engines, peerDependencies, peerDependenciesMeta, version } = own
  const project = {
    name: "consumer",
    version: "1.0.0",
    dependencies: { effect: peerDependencies.effect, [own.name]: specifier }
  }
  const installed = { bin, dependencies, engines, peerDependencies, peerDependenciesMeta, resolved, version }
  Fs.writeFileSync(Path.join(directory, "package.json"), JSON.stringify({ ...project, private: true, type: "module" }))
  Fs.writeFileSync(
    Path.join(directory, "package-lock.json"),
    JSON.stringify({
      lockfileVersion: 3,
      // npm removes those of them that the project does not need.
      packages: { "": project, ...packages, [`node_modules/${own.name}`]: installed }
    })
  )
  const { stderr, stdout } = yield* run(directory, "npm", ["install", "--prefer-offline", "--no-audit", "--no-fund"])
  return { directory, printed: `${stdout}${stderr}` }
})
