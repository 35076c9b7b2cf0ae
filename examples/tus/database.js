// The functions of vali_blob, called with named arguments.
import pg from 'pg'

pg.types.setTypeParser(pg.types.builtins.INT8, Number) // pg returns bigint as a string; sizes are below 2^53
const pool = new pg.Pool({ max: 20, connectionTimeoutMillis: 5000 })
pool.on('error', () => {}) // an idle connection has broken; unheard, that would end the process

// Runs a statement in a transaction of its own.
async function query(statement, values) {
  try {
    return (await pool.query(statement, values)).rows
  } catch (error) {
    throw error instanceof pg.DatabaseError ? error : Object.assign(error, { code: '08006' }) // no connection
  }
}

export function callAll(name, args) {
  const list = Object.keys(args).map((argument, i) => `${argument} => $${i + 1}`)
  return query(`SELECT * FROM ${name}(${list})`, Object.values(args))
}
export const call = async (name, args) => (await callAll(name, args))[0]

// The time that was so long ago
export const since = async (interval) => (await query('SELECT now() - $1::interval AS since', [interval]))[0].since
