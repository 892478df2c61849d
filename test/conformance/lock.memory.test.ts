import * as World from "../support/World.ts"
import { suite } from "./lock.ts"

suite(World.makeMemory)
